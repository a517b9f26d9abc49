// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The identity of the contents of device memory, and its record in a memory file.
//!
//! The record is written alternately to two slots, each with a sequence number and a checksum: a torn write leaves the
//! other slot, and two torn slots leave none, which means new contents with a new identity.

use std::{io, sync::OnceLock};

use hmm_protocol::SessionKey;
use uuid::Uuid;
use zerocopy::{
    FromBytes, IntoBytes,
    byteorder::little_endian::{U32, U64},
};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{MemoryError, mapping::Mapping};

const MAGIC: [u8; 8] = *b"HMMIDENT";
const VERSION: u32 = 1;
const SLOT_OFFSETS: [u64; 2] = [0, 4096];
const SLOT_BYTES: usize = 96;

/// The process ended in order.
const CLOSED: u32 = 1 << 0;
/// Contents of an earlier generation may still be there.
const SCRUB_PENDING: u32 = 1 << 1;

/// The owner of contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The memory.
    pub uuid: Uuid,
    /// The contents; changes whenever they may be lost. Never 0.
    pub generation: u64,
}

impl Identity {
    /// A new owner. The generation is random as well, so that no driver adopts foreign contents by chance.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn random() -> Result<Self, MemoryError> {
        let mut bytes = [0; 24];
        getrandom::fill(&mut bytes).map_err(|error| MemoryError::Random(error.to_string()))?;
        let (uuid, generation) = bytes.split_at(16);
        let uuid = uuid::Builder::from_slice(uuid)
            .map_err(|error| MemoryError::Random(error.to_string()))?
            .with_variant(uuid::Variant::RFC4122)
            .with_version(uuid::Version::Random)
            .into_uuid();
        // The upper half stays free, so that counting up never wraps.
        let generation = U64::read_from_bytes(generation)
            .map_err(|_| MemoryError::Random("too few bytes".to_owned()))?
            .get()
            >> 1;
        Ok(Self {
            uuid,
            generation: generation.max(1),
        })
    }

    /// The same memory with its contents given up.
    pub fn next_generation(self) -> Self {
        Self {
            uuid: self.uuid,
            generation: self.generation.wrapping_add(1).max(1),
        }
    }
}

/// What a slot records.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    identity: Identity,
    key: SessionKey,
    flags: u32,
    boot: [u8; 16],
}

impl Slot {
    /// Contents that are whole as long as this boot of the host lasts.
    pub(super) fn new(identity: Identity, key: SessionKey) -> Self {
        Self {
            identity,
            key,
            flags: 0,
            boot: boot_id(),
        }
    }

    /// The same, ended in order.
    pub(super) fn closed(mut self) -> Self {
        self.flags = CLOSED;
        self
    }

    /// The same, in use again.
    pub(super) fn opened(self) -> Self {
        Self::new(self.identity, self.key)
    }

    /// The same, with contents of an earlier generation still to be scrubbed.
    pub(super) fn scrub_pending(mut self) -> Self {
        self.flags = SCRUB_PENDING;
        self
    }

    /// The owner.
    pub(super) fn identity(&self) -> Identity {
        self.identity
    }

    /// What proves that contents are one's own; of zeros: nothing does.
    pub(super) fn key(&self) -> SessionKey {
        self.key
    }

    /// Whether every byte that the owner wrote is still there. A process that dies leaves the page cache; a host that
    /// dies does not.
    pub(super) fn contents_are_whole(&self) -> bool {
        let same_boot = self.boot != [0; 16] && self.boot == boot_id();
        self.flags & SCRUB_PENDING == 0 && (self.flags & CLOSED != 0 || same_boot)
    }
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawSlot {
    magic: [u8; 8],
    version: U32,
    flags: U32,
    sequence: U64,
    memory_bytes: U64,
    uuid: [u8; 16],
    generation: U64,
    boot: [u8; 16],
    key: SessionKey,
    checksum: U64,
}

const _: () = assert!(size_of::<RawSlot>() == SLOT_BYTES);

/// The two slots at the end of a memory file.
#[derive(Debug)]
pub(super) struct IdentityFile {
    trailer: Mapping,
    memory_bytes: u64,
    sequence: u64,
    next_slot: usize,
}

impl IdentityFile {
    /// The slots in `trailer`, for `memory_bytes` bytes of memory.
    pub(super) fn new(trailer: Mapping, memory_bytes: u64) -> Self {
        Self {
            trailer,
            memory_bytes,
            sequence: 0,
            next_slot: 0,
        }
    }

    /// The newest slot that is whole.
    pub(super) fn load(&mut self) -> Option<Slot> {
        let (index, raw) = (0..SLOT_OFFSETS.len())
            .filter_map(|index| Some((index, self.read(index)?)))
            .max_by_key(|(_, raw)| raw.sequence.get())?;
        self.sequence = raw.sequence.get();
        self.next_slot = (index + 1) % SLOT_OFFSETS.len();
        Some(Slot {
            identity: Identity {
                uuid: Uuid::from_bytes(raw.uuid),
                generation: raw.generation.get(),
            },
            key: raw.key,
            flags: raw.flags.get(),
            boot: raw.boot,
        })
    }

    /// Records `slot` in place of the older of the two.
    pub(super) fn store(&mut self, slot: Slot) -> Result<(), MemoryError> {
        self.sequence += 1;
        let mut raw = RawSlot {
            magic: MAGIC,
            version: U32::new(VERSION),
            flags: U32::new(slot.flags),
            sequence: U64::new(self.sequence),
            memory_bytes: U64::new(self.memory_bytes),
            uuid: slot.identity.uuid.into_bytes(),
            generation: U64::new(slot.identity.generation),
            boot: slot.boot,
            key: slot.key,
            checksum: U64::new(0),
        };
        raw.checksum = U64::new(checksum(&raw));
        let error = |source: io::Error| MemoryError::System {
            what: "record the identity of",
            bytes: self.memory_bytes,
            source,
        };
        let offset = SLOT_OFFSETS[self.next_slot];
        let at = self
            .trailer
            .at(offset, SLOT_BYTES as u64)
            .ok_or_else(|| error(io::Error::from(io::ErrorKind::InvalidInput)))?;
        // SAFETY: `at` is the start of SLOT_BYTES mapped, writable bytes, and `raw` is as long.
        unsafe { std::ptr::copy_nonoverlapping(raw.as_bytes().as_ptr(), at, SLOT_BYTES) };
        self.trailer.sync().map_err(error)?;
        self.next_slot = (self.next_slot + 1) % SLOT_OFFSETS.len();
        Ok(())
    }

    fn read(&self, index: usize) -> Option<RawSlot> {
        let at = self.trailer.at(SLOT_OFFSETS[index], SLOT_BYTES as u64)?;
        let mut bytes = [0; SLOT_BYTES];
        // SAFETY: `at` is the start of SLOT_BYTES mapped bytes, and `bytes` is as long.
        unsafe { std::ptr::copy_nonoverlapping(at, bytes.as_mut_ptr(), SLOT_BYTES) };
        let raw = RawSlot::read_from_bytes(&bytes).ok()?;
        let whole = raw.magic == MAGIC
            && raw.version.get() == VERSION
            && raw.memory_bytes.get() == self.memory_bytes
            && raw.generation.get() != 0
            && raw.checksum.get() == checksum(&raw);
        whole.then_some(raw)
    }
}

/// FNV-1a over all but the checksum itself.
fn checksum(raw: &RawSlot) -> u64 {
    raw.as_bytes()[..SLOT_BYTES - 8]
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        })
}

/// The identity of this boot of the host, read once, before the sandbox closes; zeros where it cannot be read.
fn boot_id() -> [u8; 16] {
    #[cfg(test)]
    if let Some(boot) = super::power_cut::boot() {
        return boot;
    }
    static BOOT: OnceLock<[u8; 16]> = OnceLock::new();
    *BOOT.get_or_init(|| {
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .ok()
            .and_then(|text| Uuid::parse_str(text.trim()).ok())
            .map_or([0; 16], Uuid::into_bytes)
    })
}
