// SPDX-License-Identifier: GPL-2.0-only

//! The huge pages that are being split, so that no page is split by two workers at once.

use crate::sys::device_memory::page::HUGE_PAGES;
use kernel::{
    mm::MmWithUser,
    new_spinlock,
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        Arc,
        SpinLock, //
    }, //
};

/// Pages that are split at once. CPUs that touch others try again.
const MOST: usize = 8;
/// Bytes of a huge page.
const HUGE_BYTES: usize = HUGE_PAGES * PAGE_SIZE;

/// A huge page: where its `mm_struct` is and where it begins.
type Key = (usize, usize);

/// What is being split.
#[pin_data]
pub(crate) struct Splits {
    #[pin]
    keys: SpinLock<[Option<Key>; MOST]>,
}

impl Splits {
    /// Nothing is.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                keys <- new_spinlock!([None; MOST], "engine::Splits::keys"),
            }),
            GFP_KERNEL,
        )
    }

    /// The huge page at `address` is to be split; `None` if it is being split already, or too many
    /// are.
    pub(crate) fn begin(this: &Arc<Self>, mm: &MmWithUser, address: usize) -> Option<Split> {
        let key = (mm.as_raw() as usize, address & !(HUGE_BYTES - 1));
        let mut keys = this.keys.lock();
        if keys.contains(&Some(key)) {
            return None;
        }
        let slot = keys.iter().position(Option::is_none)?;
        keys[slot] = Some(key);
        drop(keys);
        Some(Split {
            splits: this.clone(),
            slot,
        })
    }
}

/// A huge page that is being split. It is not any more when this is dropped.
pub(crate) struct Split {
    splits: Arc<Splits>,
    slot: usize,
}

impl Drop for Split {
    fn drop(&mut self) {
        self.splits.keys.lock()[self.slot] = None;
    }
}
