// SPDX-License-Identifier: GPL-2.0-only

//! The owner of device pages, as migrations and page table walks name it.

use kernel::{
    prelude::*,
    sync::atomic::{
        ordering::{
            Full,
            Relaxed, //
        },
        Atomic, //
    }, //
};

/// The owners of all device-private memory of this module; zero where there is none.
static OWNERS: [Atomic<usize>; 8] = [const { Atomic::new(0) }; 8];

/// What tells one device-private memory from another: the address of its pagemap.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner(usize);

impl Owner {
    /// No owner.
    #[cfg(CONFIG_KUNIT)]
    pub(in crate::sys) fn nobody() -> Self {
        Self(0)
    }

    /// The owners of all device-private memory of this module, as far as they fit the list.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        OWNERS
            .iter()
            .map(|owner| owner.load(Relaxed))
            .filter(|&owner| owner != 0)
            .map(Self)
    }

    /// The owner whose pagemap is at `address`.
    pub(super) fn at(address: usize) -> Self {
        Self(address)
    }

    /// Adds the owner to the list, if there is room.
    pub(super) fn enlist(self) {
        Self::replace(0, self.0);
    }

    /// Removes the owner from the list.
    pub(super) fn delist(self) {
        Self::replace(self.0, 0);
    }

    /// Changes one entry of the list, if there is one that reads `from`.
    fn replace(from: usize, to: usize) {
        for owner in &OWNERS {
            if owner.cmpxchg(from, to, Full).is_ok() {
                return;
            }
        }
    }

    pub(in crate::sys) fn as_raw(self) -> *mut c_void {
        self.0 as *mut c_void
    }
}
