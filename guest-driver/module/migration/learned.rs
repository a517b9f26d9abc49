// SPDX-License-Identifier: GPL-2.0-only

//! What the driver learns while it moves pages: how fast the device copies, and who reads in
//! order.

use crate::sys::address_space::mm::Vma;
use hmm_logic::{
    Pace,
    Window,
    WindowBounds,
    Windows, //
};
use kernel::{
    new_spinlock,
    prelude::*,
    sync::SpinLock, //
};

/// Readers that are followed at once.
const READERS: usize = 64;
/// Time that the device may take for a batch, ns: a CPU waits about so long, at most, for a page that
/// is on its way, beside what the kernel takes. From 5.6 GB/s on, batches have at least 8 MiB.
const BATCH_NS: u64 = 1_250_000;
/// Bytes of the smallest batch: what one page table maps.
const LEAST_BATCH: usize = 2 << 20;

/// See the module.
#[pin_data]
pub(super) struct Learned {
    #[pin]
    pace: SpinLock<Pace>,
    #[pin]
    windows: SpinLock<Windows<READERS>>,
}

impl Learned {
    /// Nothing is learned yet; no batch will have more than `most` bytes.
    pub(super) fn new(most: usize) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            pace <- new_spinlock!(Pace::new(BATCH_NS, LEAST_BATCH, most), "Learned::pace"),
            windows <- new_spinlock!(Windows::new(), "Learned::windows"),
        })
    }

    /// The device copied `bytes` in `ns`.
    pub(super) fn copied(&self, bytes: u64, ns: u32) {
        self.pace.lock().record(bytes, ns);
    }

    /// Bytes that a batch should have, a multiple of 2 MiB.
    pub(super) fn batch_bytes(&self) -> usize {
        self.pace.lock().batch_bytes()
    }

    /// What a fault at `address` brings home.
    pub(super) fn fault_window(
        &self,
        vma: &Vma<'_>,
        address: usize,
        bounds: WindowBounds,
    ) -> Window {
        let mapping = vma.start()..vma.end();
        let space = vma.mm().as_raw() as usize;
        self.windows
            .lock()
            .of_fault(space, address, mapping, bounds)
    }
}
