// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The file behind device memory: a memfd, or a file that the user names.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use rustix::{
    fs::{
        FallocateFlags, FlockOperation, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, flock,
        fstatfs, memfd_create,
    },
    io::Errno,
    mm::{Advice, madvise},
};

use super::{MemoryError, mapping::Mapping};

/// What a memory file has beyond the memory itself, at least: room for the identity.
const TRAILER_BYTES: u64 = 2 << 20;
/// The magic number of hugetlbfs.
const HUGETLBFS_MAGIC: u64 = 0x9584_58f6;

/// Sizes of reserved huge pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HugePage {
    /// 2 MiB.
    Size2M,
    /// 1 GiB.
    Size1G,
}

impl HugePage {
    /// Bytes of a page.
    pub fn bytes(self) -> u64 {
        match self {
            Self::Size2M => 2 << 20,
            Self::Size1G => 1 << 30,
        }
    }
}

/// The file.
#[derive(Debug)]
pub(super) struct Backing {
    file: File,
    kind: &'static str,
    /// Bytes of a page that the host has reserved for the file; nothing if it has reserved none.
    reserved: Option<u64>,
}

impl Backing {
    /// A memfd of `bytes` bytes. It can neither shrink nor grow, so no access can fail for lack of file.
    pub(super) fn anonymous(bytes: u64, huge: Option<HugePage>) -> Result<Self, MemoryError> {
        let error = |source: io::Error| MemoryError::System {
            what: "make",
            bytes,
            source,
        };
        let huge_flags = match huge {
            None => MemfdFlags::empty(),
            Some(HugePage::Size2M) => MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB,
            Some(HugePage::Size1G) => MemfdFlags::HUGETLB | MemfdFlags::HUGE_1GB,
        };
        let descriptor = memfd_create(
            "hmm-device-memory",
            MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | huge_flags,
        )
        .map_err(|errno| error(errno.into()))?;
        let file = File::from(descriptor);
        file.set_len(bytes).map_err(error)?;
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW)
            .map_err(|errno| error(errno.into()))?;
        Ok(Self {
            file,
            kind: if huge.is_some() { "hugetlb" } else { "memfd" },
            reserved: huge.map(HugePage::bytes),
        })
    }

    /// The file `path` for `bytes` bytes of memory, and whether it was empty or new.
    pub(super) fn in_file(path: &Path, bytes: u64) -> Result<(Self, bool), MemoryError> {
        let name = path.display().to_string();
        let open_error = |source: io::Error| MemoryError::Open {
            path: name.clone(),
            source,
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(open_error)?;
        let metadata = file.metadata().map_err(open_error)?;
        if !metadata.is_file() {
            return Err(MemoryError::NotAFile(name));
        }
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(MemoryError::InUse(name)),
            Err(errno) => return Err(open_error(errno.into())),
        }
        let reserved = reserved_page(&file).map_err(open_error)?;
        let page = reserved.unwrap_or(1);
        if !bytes.is_multiple_of(page) {
            return Err(MemoryError::NotHuge { bytes, page });
        }
        // The length may have changed while another process held the lock.
        let found = file.metadata().map_err(open_error)?.len();
        let backing = Self {
            file,
            kind: "file",
            reserved,
        };
        let file = &backing.file;
        let expected = bytes.saturating_add(backing.trailer_bytes());
        if found == 0 {
            file.set_len(expected).map_err(open_error)?;
        } else if found != expected {
            return Err(MemoryError::WrongLength {
                path: name,
                found,
                expected,
            });
        }
        Ok((backing, found == 0))
    }

    /// The file itself.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// What kind of file it is, for people.
    pub(super) fn kind(&self) -> &'static str {
        self.kind
    }

    /// Bytes of the file's pages, at least.
    pub(super) fn page_bytes(&self) -> u64 {
        self.reserved.unwrap_or(1)
    }

    /// Bytes behind the memory in a memory file: one page at least, since a file has whole ones.
    pub(super) fn trailer_bytes(&self) -> u64 {
        TRAILER_BYTES.max(self.page_bytes())
    }

    /// Gets the pages of a range now, so that none is missing later and no copy waits for one.
    pub(super) fn prefault(
        &self,
        mapping: &Mapping,
        start: u64,
        len: u64,
    ) -> Result<(), MemoryError> {
        let error = |source: io::Error| MemoryError::System {
            what: "prefault",
            bytes: len,
            source,
        };
        let at = mapping
            .at(start, len)
            .ok_or_else(|| error(io::Error::from(io::ErrorKind::InvalidInput)))?;
        // Room first: a file system that is full says so here, and not by a signal in the middle of a copy.
        match fallocate(&self.file, FallocateFlags::KEEP_SIZE, start, len) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
            Err(errno) => return Err(error(errno.into())),
        }
        // SAFETY: `at` is the start of `len` bytes of a live mapping, and populating it changes no byte.
        unsafe { madvise(at.cast(), len as usize, Advice::LinuxPopulateWrite) }
            .map_err(|errno| error(errno.into()))
    }

    /// Makes a range read as zero: by a hole where the file system can, by writing zeros where it cannot, and where pages
    /// are reserved. A hole would give the reservation back, and when another process has taken it, the next access
    /// would end this one.
    pub(super) fn discard(
        &self,
        mapping: &Mapping,
        start: u64,
        len: u64,
    ) -> Result<(), MemoryError> {
        let error = |source: io::Error| MemoryError::System {
            what: "discard",
            bytes: len,
            source,
        };
        let punched = match self.reserved {
            Some(_) => Err(Errno::OPNOTSUPP),
            None => fallocate(
                &self.file,
                FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
                start,
                len,
            ),
        };
        match punched {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                let at = mapping
                    .at(start, len)
                    .ok_or_else(|| error(io::Error::from(io::ErrorKind::InvalidInput)))?;
                // SAFETY: `at` is the start of `len` mapped, writable bytes; they are shared memory to which
                // there is no reference.
                unsafe { std::ptr::write_bytes(at, 0, len as usize) };
                Ok(())
            }
            Err(errno) => Err(error(errno.into())),
        }
    }
}

/// Bytes of a page of `file`, if it is one of hugetlbfs, which reserves pages for what is mapped.
fn reserved_page(file: &File) -> io::Result<Option<u64>> {
    let system = fstatfs(file)?;
    // The types of both fields differ between architectures.
    let is_huge = system.f_type as u64 & 0xffff_ffff == HUGETLBFS_MAGIC;
    let page = u64::try_from(system.f_bsize).unwrap_or(0);
    Ok((is_huge && page.is_power_of_two()).then_some(page))
}
