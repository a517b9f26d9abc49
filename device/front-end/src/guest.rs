// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest's memory: memfds that the device maps as well.

use std::fs::File;

use rustix::fs::{MemfdFlags, memfd_create};
use vhost::VhostUserMemoryRegionInfo;
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

/// Start and length of each region.
#[derive(Clone, Debug)]
pub struct Layout(pub Vec<(u64, usize)>);

impl Default for Layout {
    /// Two regions that touch at 32 MiB, and one behind a gap.
    fn default() -> Self {
        Self(vec![
            (0, 32 << 20),
            (32 << 20, 16 << 20),
            (1 << 32, 8 << 20),
        ])
    }
}

impl Layout {
    /// One region of `bytes` bytes.
    pub fn flat(bytes: usize) -> Self {
        Self(vec![(0, bytes)])
    }
}

/// The guest's memory.
pub struct Guest {
    /// The mappings.
    pub memory: GuestMemoryMmap,
}

impl Guest {
    /// Zeroed memory of this layout.
    pub fn new(layout: &Layout) -> Self {
        let ranges: Vec<_> = layout
            .0
            .iter()
            .map(|(start, len)| {
                let file =
                    File::from(memfd_create("test-guest", MemfdFlags::CLOEXEC).expect("a memfd"));
                file.set_len(*len as u64).expect("memory");
                (GuestAddress(*start), *len, Some(FileOffset::new(file, 0)))
            })
            .collect();
        Self {
            memory: GuestMemoryMmap::from_ranges_with_files(&ranges).expect("mapped memory"),
        }
    }

    /// The regions as the front end tells them to the device.
    pub fn regions(&self) -> Vec<VhostUserMemoryRegionInfo> {
        self.memory
            .iter()
            .map(|region| {
                VhostUserMemoryRegionInfo::from_guest_region(region).expect("a file behind it")
            })
            .collect()
    }

    /// Where the front end has mapped a guest address.
    pub fn host_address(&self, address: u64) -> u64 {
        self.memory
            .get_host_address(GuestAddress(address))
            .expect("guest memory") as u64
    }

    /// Bytes of the guest's memory.
    pub fn read(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory
            .read_slice(&mut bytes, GuestAddress(address))
            .expect("guest memory");
        bytes
    }

    /// Writes to the guest's memory.
    pub fn write(&self, address: u64, bytes: &[u8]) {
        self.memory
            .write_slice(bytes, GuestAddress(address))
            .expect("guest memory");
    }

    /// Loads with acquire semantics.
    pub fn load_u16(&self, address: u64) -> u16 {
        u16::from_le(
            self.memory
                .load(GuestAddress(address), std::sync::atomic::Ordering::Acquire)
                .expect("guest memory"),
        )
    }

    /// Loads with acquire semantics.
    pub fn load_u8(&self, address: u64) -> u8 {
        self.memory
            .load(GuestAddress(address), std::sync::atomic::Ordering::Acquire)
            .expect("guest memory")
    }

    /// Stores, ordered with everything else.
    pub fn store_u16(&self, address: u64, value: u16) {
        self.memory
            .store(
                value.to_le(),
                GuestAddress(address),
                std::sync::atomic::Ordering::SeqCst,
            )
            .expect("guest memory");
    }
}
