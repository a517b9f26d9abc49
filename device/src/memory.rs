// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The device's private memory: a file of its own that no guest maps.
//!
//! Contents belong to an identity (a uuid and a generation). The generation changes before contents are given up, so
//! that new memory cannot be taken for old.

mod backing;
mod error;
mod identity;
mod mapping;
#[cfg(test)]
mod power_cut;
mod residency;

use std::path::Path;

use hmm_protocol::SessionKey;
use parking_lot::Mutex;

use self::{
    backing::Backing,
    identity::{IdentityFile, Slot},
    mapping::Mapping,
    residency::Residency,
};
pub use self::{
    backing::HugePage, error::MemoryError, identity::Identity, residency::BackingReport,
};

/// How much is scrubbed in one go.
const SLICE_BYTES: u64 = 16 << 20;

/// The private memory and its identity.
///
/// Lock order: `file`, then `state`. The second is never held for long, so that the identity can be read at any time.
#[derive(Debug)]
pub struct DeviceMemory {
    mapping: Mapping,
    backing: Backing,
    residency: Residency,
    prefault: bool,
    file: Mutex<Option<IdentityFile>>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    identity: Identity,
    key: SessionKey,
    contents: Contents,
}

/// What there is to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contents {
    /// Zeros.
    Zero,
    /// What the owner wrote.
    Owned,
    /// Zeros below this offset, and behind it what the last owner wrote.
    Unscrubbed(u64),
}

impl DeviceMemory {
    /// Memory of `bytes` bytes (a multiple of 2 MiB) that ends with the process.
    ///
    /// # Errors
    /// The system's reason.
    pub fn anonymous(bytes: u64) -> Result<Self, MemoryError> {
        Self::new(Backing::anonymous(bytes, None)?, bytes)
    }

    /// The same on huge pages that the host has reserved.
    ///
    /// # Errors
    /// The size is not a multiple of the page size, or too few pages are reserved.
    pub fn huge(bytes: u64, page: HugePage) -> Result<Self, MemoryError> {
        if !bytes.is_multiple_of(page.bytes()) {
            return Err(MemoryError::NotHuge {
                bytes,
                page: page.bytes(),
            });
        }
        Self::new(Backing::anonymous(bytes, Some(page))?, bytes)
    }

    fn new(backing: Backing, bytes: u64) -> Result<Self, MemoryError> {
        let state = State {
            identity: Identity::random()?,
            key: SessionKey::default(),
            contents: Contents::Zero,
        };
        Self::assemble(backing, bytes, None, state)
    }

    fn assemble(
        backing: Backing,
        bytes: u64,
        file: Option<IdentityFile>,
        state: State,
    ) -> Result<Self, MemoryError> {
        let mapping = Mapping::new(backing.file(), backing.page_bytes(), 0, bytes)?;
        mapping.prefer_huge_pages();
        Ok(Self {
            residency: Residency::new(),
            prefault: false,
            mapping,
            backing,
            file: Mutex::new(file),
            state: Mutex::new(state),
        })
    }

    /// Memory in the file `path`, which is made if it does not exist. Contents and identity of an earlier process stay
    /// if the file says that they are whole; otherwise the memory is scrubbed and gets a new identity.
    ///
    /// # Errors
    /// The file is in use, has another size, or the system's reason.
    pub fn in_file(path: &Path, bytes: u64) -> Result<Self, MemoryError> {
        let (backing, fresh) = Backing::in_file(path, bytes)?;
        let page = backing.page_bytes();
        let trailer = Mapping::new(backing.file(), page, bytes, backing.trailer_bytes())?;
        let mut file = IdentityFile::new(trailer, bytes);
        let slot = if fresh { None } else { file.load() };
        match slot {
            Some(slot) if slot.contents_are_whole() => {
                file.store(slot.opened())?;
                let state = State {
                    identity: slot.identity(),
                    key: slot.key(),
                    contents: Contents::Owned,
                };
                Self::assemble(backing, bytes, Some(file), state)
            }
            other => {
                let identity = match other {
                    Some(slot) => slot.identity().next_generation(),
                    None => Identity::random()?,
                };
                let state = State {
                    identity,
                    key: SessionKey::default(),
                    contents: Contents::Unscrubbed(0),
                };
                let memory = Self::assemble(backing, bytes, Some(file), state)?;
                memory.renew(None)?;
                Ok(memory)
            }
        }
    }

    /// Gets all pages now, and again whenever contents are given up.
    ///
    /// # Errors
    /// There is not enough memory.
    pub fn prefault(&mut self) -> Result<(), MemoryError> {
        self.prefault = true;
        self.backing.prefault(&self.mapping, 0, self.bytes())
    }

    /// What backs the memory, and what was achieved; measured.
    pub fn backing(&self) -> BackingReport {
        let (resident_bytes, huge_bytes) = self.residency.measure(&self.mapping).unzip();
        BackingReport {
            kind: self.backing.kind(),
            prefaulted: self.prefault,
            resident_bytes,
            huge_bytes,
        }
    }

    /// Size, bytes.
    pub fn bytes(&self) -> u64 {
        self.mapping.bytes()
    }

    /// Which generation of contents this is.
    pub fn identity(&self) -> Identity {
        self.state.lock().identity
    }

    /// Where offset `start` is mapped, if `start + len` is within the memory.
    pub fn at(&self, start: u64, len: u64) -> Option<*mut u8> {
        self.mapping.at(start, len)
    }

    /// Whether the contents are of this generation, and of the session that was opened with this key. Contents that are
    /// not scrubbed yet cannot be adopted.
    pub fn belongs_to(&self, generation: u64, key: SessionKey) -> bool {
        let state = self.state.lock();
        // Each byte is looked at, so that the time tells nothing of those that are right.
        let difference =
            (state.key.iter().zip(key)).fold(0, |all, (ours, theirs)| all | (ours ^ theirs));
        let is_scrubbed = !matches!(state.contents, Contents::Unscrubbed(_));
        state.identity.generation == generation
            && difference == 0
            && key != SessionKey::default()
            && is_scrubbed
    }

    /// From now on there may be something in the memory. Call it before a session is opened.
    pub fn hand_out(&self) {
        self.state.lock().contents = Contents::Owned;
    }

    /// Begins to give all contents up: takes the next generation. A driver that has `key` can adopt the contents to
    /// come; with none that is the key of the contents before. Nothing may be copied until
    /// [`continue_renewal`](Self::continue_renewal) says that all is scrubbed. If the last renewal was not finished,
    /// this one goes on with it: its generation has had no contents.
    ///
    /// # Errors
    /// The system's reason; the generation and the key have changed nevertheless, and the contents cannot be adopted.
    pub fn begin_renewal(&self, key: Option<SessionKey>) -> Result<(), MemoryError> {
        let mut file = self.file.lock();
        let slot = {
            let mut state = self.state.lock();
            match state.contents {
                Contents::Unscrubbed(_) => {}
                Contents::Zero => {
                    state.identity = state.identity.next_generation();
                    state.contents = Contents::Unscrubbed(self.bytes());
                }
                Contents::Owned => {
                    state.identity = state.identity.next_generation();
                    state.contents = Contents::Unscrubbed(0);
                }
            }
            state.key = key.unwrap_or(state.key);
            Slot::new(state.identity, state.key)
        };
        match &mut *file {
            Some(file) => file.store(slot.scrub_pending()),
            None => Ok(()),
        }
    }

    /// Scrubs a slice of what [`begin_renewal`](Self::begin_renewal) gave up. Returns the generation when all is done,
    /// also if there was nothing to do.
    ///
    /// The order matters: the new generation is on record, as unscrubbed, before the first byte goes, and on record as
    /// scrubbed only after the last. A crash in between is found at the next start.
    ///
    /// # Errors
    /// The system's reason. The rest is still to be scrubbed.
    pub fn continue_renewal(&self) -> Result<Option<u64>, MemoryError> {
        let mut file = self.file.lock();
        let (start, slot) = {
            let state = self.state.lock();
            let Contents::Unscrubbed(start) = state.contents else {
                return Ok(Some(state.identity.generation));
            };
            (start, Slot::new(state.identity, state.key))
        };
        let len = SLICE_BYTES.min(self.bytes().saturating_sub(start));
        if len > 0 {
            self.discard(start, len)?;
            if self.prefault {
                self.backing.prefault(&self.mapping, start, len)?;
            }
            self.state.lock().contents = Contents::Unscrubbed(start.saturating_add(len));
            return Ok(None);
        }
        if let Some(file) = &mut *file {
            file.store(slot)?;
        }
        let mut state = self.state.lock();
        state.contents = Contents::Zero;
        Ok(Some(state.identity.generation))
    }

    /// Gives all contents up and takes the next generation, which it returns, in one go.
    ///
    /// # Errors
    /// As of the two steps.
    pub fn renew(&self, key: Option<SessionKey>) -> Result<u64, MemoryError> {
        self.begin_renewal(key)?;
        loop {
            if let Some(generation) = self.continue_renewal()? {
                return Ok(generation);
            }
        }
    }

    /// Makes `len` bytes from `start` read as zero and gives their pages back; both multiples of 4096 and in range.
    ///
    /// # Errors
    /// The system's reason.
    pub fn discard(&self, start: u64, len: u64) -> Result<(), MemoryError> {
        self.backing.discard(&self.mapping, start, len)
    }

    /// Records that the process ends in order: nothing is in flight. The contents are in storage before the record says
    /// that they are whole.
    ///
    /// # Errors
    /// The system's reason.
    pub fn close(&self) -> Result<(), MemoryError> {
        let mut file = self.file.lock();
        let Some(file) = &mut *file else {
            return Ok(());
        };
        let slot = {
            let state = self.state.lock();
            if matches!(state.contents, Contents::Unscrubbed(_)) {
                // The record says so, and the next process goes on.
                return Ok(());
            }
            Slot::new(state.identity, state.key)
        };
        self.mapping.sync().map_err(|source| MemoryError::System {
            what: "write to storage",
            bytes: self.bytes(),
            source,
        })?;
        file.store(slot.closed())
    }
}

#[cfg(test)]
mod tests {
    use super::{DeviceMemory, MemoryError};

    const BYTES: u64 = 4 << 20;

    fn poke(memory: &DeviceMemory, offset: u64, value: u8) {
        let at = memory.at(offset, 1).expect("in range");
        // SAFETY: `at` points to one mapped byte, and this test has one thread.
        unsafe { at.write_volatile(value) };
    }

    fn peek(memory: &DeviceMemory, offset: u64) -> u8 {
        let at = memory.at(offset, 1).expect("in range");
        // SAFETY: `at` points to one mapped byte, and this test has one thread.
        unsafe { at.read_volatile() }
    }

    #[test]
    fn renewing_gives_zeros_and_another_generation() {
        let memory = DeviceMemory::anonymous(BYTES).expect("memory");
        let before = memory.identity();
        memory.hand_out();
        poke(&memory, 4096, 7);
        let generation = memory.renew(Some([1; 16])).expect("renew");
        assert_ne!(generation, before.generation);
        assert_eq!(memory.identity().uuid, before.uuid);
        assert_eq!(peek(&memory, 4096), 0);
    }

    #[test]
    fn contents_belong_to_the_generation_and_the_key() {
        let memory = DeviceMemory::anonymous(BYTES).expect("memory");
        assert!(!memory.belongs_to(memory.identity().generation, [0; 16]));
        let generation = memory.renew(Some([7; 16])).expect("renew");
        assert!(memory.belongs_to(generation, [7; 16]));
        assert!(!memory.belongs_to(generation + 1, [7; 16]));
        for bit in 0..128 {
            let mut key = [7; 16];
            key[bit / 8] ^= 1 << (bit % 8);
            assert!(!memory.belongs_to(generation, key), "bit {bit}");
        }
        let generation = memory.renew(Some([0; 16])).expect("renew");
        assert!(!memory.belongs_to(generation, [0; 16]), "no key is no key");
    }

    #[test]
    fn a_renewal_in_slices_is_nobodys_until_it_is_done() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("memory");
        let bytes = 3 * super::SLICE_BYTES;
        let memory = DeviceMemory::in_file(&path, bytes).expect("new file");
        let before = memory.identity();
        memory.hand_out();
        poke(&memory, bytes - 1, 7);
        let (first, second) = ([1; 16], [2; 16]);
        memory.begin_renewal(Some(first)).expect("begin");
        let generation = memory.identity().generation;
        assert_ne!(generation, before.generation);
        assert_eq!(memory.continue_renewal().expect("a slice"), None);
        assert!(!memory.belongs_to(generation, first));
        // Another one goes on with it.
        memory.begin_renewal(Some(second)).expect("begin");
        assert_eq!(memory.identity().generation, generation);
        // To end now does not make it whole.
        memory.close().expect("close");
        drop(memory);
        let memory = DeviceMemory::in_file(&path, bytes).expect("same file");
        assert_ne!(memory.identity().generation, generation);
        assert_eq!(peek(&memory, bytes - 1), 0);
        let generation = memory.renew(Some(second)).expect("renew");
        assert!(memory.belongs_to(generation, second));
    }

    #[test]
    fn ranges_are_bounded() {
        let memory = DeviceMemory::anonymous(BYTES).expect("memory");
        assert!(memory.at(0, BYTES).is_some());
        assert!(memory.at(BYTES, 0).is_some());
        assert!(memory.at(1, BYTES).is_none());
        assert!(memory.at(BYTES + 1, 0).is_none());
        assert!(memory.at(u64::MAX, 2).is_none());
    }

    #[test]
    fn a_file_keeps_contents_and_identity() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("memory");
        let memory = DeviceMemory::in_file(&path, BYTES).expect("new file");
        let identity = memory.identity();
        poke(&memory, 12345, 99);
        assert!(matches!(
            DeviceMemory::in_file(&path, BYTES),
            Err(MemoryError::InUse(_))
        ));
        drop(memory);
        // Not closed, as after a crash of the process: the page cache still has every byte.
        let memory = DeviceMemory::in_file(&path, BYTES).expect("same file");
        assert_eq!(memory.identity(), identity);
        assert_eq!(peek(&memory, 12345), 99);
        memory.close().expect("close");
        drop(memory);
        let memory = DeviceMemory::in_file(&path, BYTES).expect("same file");
        assert_eq!(memory.identity(), identity);
        drop(memory);
        assert!(matches!(
            DeviceMemory::in_file(&path, BYTES * 2),
            Err(MemoryError::WrongLength { .. })
        ));
    }

    #[test]
    fn a_torn_record_costs_the_contents_and_the_identity() {
        use std::os::unix::fs::FileExt;
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("memory");
        let memory = DeviceMemory::in_file(&path, BYTES).expect("new file");
        let identity = memory.identity();
        poke(&memory, 0, 1);
        drop(memory);
        let file = std::fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .expect("open");
        for slot in [0, 4096] {
            file.write_all_at(&[0xff; 16], BYTES + slot + 24)
                .expect("tear");
        }
        drop(file);
        let memory = DeviceMemory::in_file(&path, BYTES).expect("same file");
        assert_ne!(memory.identity(), identity);
        assert_eq!(peek(&memory, 0), 0, "unowned contents were readable");
    }

    /// Opens a file whose slot at `torn` was torn after its first use, and returns the two identities and byte 0.
    fn after_tearing(torn: u64) -> (super::Identity, super::Identity, u8) {
        use std::os::unix::fs::FileExt;
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("memory");
        let memory = DeviceMemory::in_file(&path, BYTES).expect("new file");
        let before = memory.identity();
        poke(&memory, 0, 5);
        drop(memory);
        let file = std::fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .expect("open");
        file.write_all_at(&[0xff; 16], BYTES + torn + 24)
            .expect("tear");
        drop(file);
        let memory = DeviceMemory::in_file(&path, BYTES).expect("same file");
        (before, memory.identity(), peek(&memory, 0))
    }

    #[test]
    fn one_torn_slot_falls_back_to_the_other() {
        // Making the file recorded "scrub pending" in the first slot and "whole" in the second.
        let (before, after, byte) = after_tearing(0);
        assert_eq!((after, byte), (before, 5), "the newer slot is enough");
        let (before, after, byte) = after_tearing(4096);
        assert_eq!(after.uuid, before.uuid);
        assert_ne!(after.generation, before.generation);
        assert_eq!(byte, 0, "the older slot says that nothing was scrubbed");
    }

    #[test]
    fn a_folder_is_not_a_memory_file() {
        let folder = tempfile::tempdir().expect("folder");
        assert!(matches!(
            DeviceMemory::in_file(folder.path(), BYTES),
            Err(MemoryError::NotAFile(_) | MemoryError::Open { .. })
        ));
    }
}
