// SPDX-License-Identifier: GPL-2.0-only

//! What the driver learns while it migrates pages: how fast the device copies, and which processes
//! read in order.

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
/// Time that the device may take for a batch, ns. A faulting CPU waits at most about so long for a page
/// of a batch in flight, beside what the kernel takes. From 5.6 GB/s on, batches have at least 8 MiB.
const BATCH_NS: u64 = 1_250_000;
/// Bytes of the smallest batch: what one page table maps.
const LEAST_BATCH: usize = 2 << 20;

/// See the module.
#[pin_data]
pub(crate) struct Tuning {
    #[pin]
    pace: SpinLock<Pace>,
    #[pin]
    windows: SpinLock<Windows<READERS>>,
}

impl Tuning {
    /// Nothing is learned yet; no batch will have more than `most` bytes.
    pub(crate) fn new(most: usize) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            pace <- new_spinlock!(Pace::new(BATCH_NS, LEAST_BATCH, most), "Tuning::pace"),
            windows <- new_spinlock!(Windows::new(), "Tuning::windows"),
        })
    }

    /// The device copied `bytes` in `ns`.
    pub(crate) fn copied(&self, bytes: u64, ns: u32) {
        self.pace.lock().record(bytes, ns);
    }

    /// Bytes that a batch should have, a multiple of 2 MiB.
    pub(crate) fn batch_bytes(&self) -> usize {
        self.pace.lock().batch_bytes()
    }

    /// What a fault at `address` migrates back.
    pub(crate) fn fault_window(
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
