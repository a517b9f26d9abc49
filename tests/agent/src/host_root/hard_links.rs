// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Keeps several names of one file of the host names of one file.
//!
//! Once such a file is written to, overlayfs (`index=on`) finds its copy under the handle of the host's file, whatever name it is looked
//! up by. A handle of virtiofs is the number that the kernel got when it looked the file up. When the kernel drops the inode from its
//! cache, the number goes with it, the next look-up gets another one, and a name that was not written to shows the host's contents again.
//! So an inotify watch holds the inode of each file that has a copy.

use std::ffi::CStr;
use std::fs::{self, File};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

/// The layout of a name in the index, which is hexadecimal: a header of this size with the magic number, the type of the handle and the
/// identity of the file system, then the handle.
const HEADER: usize = 21;
const MAGIC: u8 = 0xfb;
const MAGIC_AT: usize = 1;
const TYPE_AT: usize = 4;

/// Follows the index from now on.
pub(super) fn keep(lower: &Path, index: PathBuf) -> Result<()> {
    let keeper = Keeper {
        lower: File::open(lower).with_context(|| format!("cannot open {}", lower.display()))?,
        watches: inotify::init(CreateFlags::CLOEXEC).context("cannot make an inotify instance")?,
        index,
    };
    let arrivals =
        inotify::init(CreateFlags::CLOEXEC).context("cannot make an inotify instance")?;
    // A copy is made beside the index and linked or moved into it.
    inotify::add_watch(
        &arrivals,
        &keeper.index,
        WatchFlags::CREATE | WatchFlags::MOVED_TO,
    )
    .with_context(|| format!("the overlay has no index at {}", keeper.index.display()))?;
    thread::Builder::new()
        .name("hard links".to_owned())
        .spawn(move || {
            if let Err(error) = keeper.follow(arrivals) {
                tracing::error!("hard links of the host are followed no more: {error:#}");
            }
        })
        .context("cannot start a thread")?;
    Ok(())
}

struct Keeper {
    lower: File,
    /// Holds the inodes. Its events are never read.
    watches: OwnedFd,
    index: PathBuf,
}

impl Keeper {
    fn follow(&self, arrivals: OwnedFd) -> Result<()> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut arrivals = Reader::new(arrivals, &mut buffer);
        loop {
            let event = match arrivals.next() {
                Ok(event) => event,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error).context("cannot read the index's events"),
            };
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                self.hold_all()?;
            } else if let Some(name) = event.file_name().map(CStr::to_bytes) {
                self.hold(name);
            }
        }
    }

    fn hold_all(&self) -> Result<()> {
        let entries = fs::read_dir(&self.index).context("cannot read the index")?;
        for entry in entries {
            self.hold(entry?.file_name().as_encoded_bytes());
        }
        Ok(())
    }

    /// Holds the inode of the host's file under whose handle the index has a copy.
    fn hold(&self, name: &[u8]) {
        let Some(handle) = Handle::of_name(name) else {
            // overlayfs makes other files there, too.
            return;
        };
        let held = handle.open(&self.lower).and_then(|file| {
            // The way through the descriptor needs no path of the file.
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            Ok(inotify::add_watch(&self.watches, path, WatchFlags::ATTRIB)?)
        });
        if let Err(error) = held {
            tracing::warn!("hard links of a file of the host may come apart: {error}");
        }
    }
}

/// A handle of a file, as the kernel takes it.
#[repr(C)]
struct Handle {
    head: libc::file_handle,
    bytes: [u8; libc::MAX_HANDLE_SZ as usize],
}

impl Handle {
    /// Reads the name of an entry of the index.
    fn of_name(name: &[u8]) -> Option<Self> {
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let (pairs, rest) = name.as_chunks::<2>();
        let text: Option<Vec<u8>> = pairs
            .iter()
            .map(|&[high, low]| u8::try_from(digit(high)? << 4 | digit(low)?).ok())
            .collect();
        let text = text.filter(|_| rest.is_empty())?;
        let (header, own) = text.split_at_checked(HEADER)?;
        let mut bytes = [0; libc::MAX_HANDLE_SZ as usize];
        bytes.get_mut(..own.len())?.copy_from_slice(own);
        (header[MAGIC_AT] == MAGIC).then_some(Self {
            head: libc::file_handle {
                handle_bytes: u32::try_from(own.len()).ok()?,
                handle_type: i32::from(header[TYPE_AT]),
                f_handle: [],
            },
            bytes,
        })
    }

    /// Opens the file on the file system that `mount` is on.
    fn open(mut self, mount: &File) -> std::io::Result<OwnedFd> {
        let handle = (&raw mut self).cast::<libc::file_handle>();
        // SAFETY: the head is followed by as many bytes as it says, `of_name` has checked that there is room for them, and the
        // layout is that of C.
        let fd = unsafe {
            libc::open_by_handle_at(mount.as_raw_fd(), handle, libc::O_PATH | libc::O_CLOEXEC)
        };
        if fd < 0 {
            return Err(std::io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and belongs to nothing else.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_the_index_is_a_handle() {
        let uuid = "00".repeat(16);
        let name = format!("00fb210081{uuid}000000000000002a00000000");
        let handle = Handle::of_name(name.as_bytes()).unwrap();
        assert_eq!(
            (handle.head.handle_bytes, handle.head.handle_type),
            (12, 0x81)
        );
        assert_eq!(handle.bytes[..8], [0, 0, 0, 0, 0, 0, 0, 42]);
        let other_magic = name.replacen("fb", "fc", 1);
        let too_long = format!("{name}{}", "00".repeat(200));
        for wrong in ["", "#1", "00fb", &name[1..], &other_magic, &too_long] {
            assert!(Handle::of_name(wrong.as_bytes()).is_none(), "{wrong}");
        }
    }
}
