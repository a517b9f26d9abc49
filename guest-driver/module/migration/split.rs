// SPDX-License-Identifier: GPL-2.0-only

//! A CPU touched a huge device page that must not come home as one: others map it, too, or nothing
//! is known of the process. Under a fault on the whole page the kernel does not split it, since the
//! fault refers to it. So a worker does, while the CPU tries again and again.

use super::{
    home,
    DeviceMemory, //
};
use crate::{
    link::Link,
    sys::{
        address_space::{
            mm::Vma,
            mmap_lock::MmapReadGuard, //
        },
        device_memory::page::HUGE_PAGES,
        migrate::Select, //
    }, //
};
use core::ops::Range;
use hmm_uapi::Trigger;
use kernel::{
    mm::MmWithUser,
    new_spinlock,
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        Arc,
        SpinLock, //
    },
    time::{
        delay::fsleep,
        Delta, //
    }, //
};

/// Pages that are split at once. CPUs that touch others try again.
const MOST: usize = 8;
/// How often a page is tried that somebody else has. The CPU asks again if it is still huge then.
const TRIES: usize = 100;
/// What those who have it are given to let go of it.
const PAUSE: Delta = Delta::from_micros(20);
/// Bytes of a huge page.
const HUGE_BYTES: usize = HUGE_PAGES * PAGE_SIZE;

/// A huge page: where its `mm_struct` is and where it begins.
type Key = (usize, usize);

/// What is being split.
#[pin_data]
pub(super) struct Splits {
    #[pin]
    keys: SpinLock<[Option<Key>; MOST]>,
}

impl Splits {
    /// Nothing is.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                keys <- new_spinlock!([None; MOST], "migration::Splits::keys"),
            }),
            GFP_KERNEL,
        )
    }

    /// The huge page at `address` is to be split; `None` if it is being split already, or too many
    /// are.
    pub(super) fn begin(this: &Arc<Self>, mm: &MmWithUser, address: usize) -> Option<Split> {
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
pub(super) struct Split {
    splits: Arc<Splits>,
    slot: usize,
}

impl Drop for Split {
    fn drop(&mut self) {
        self.splits.keys.lock()[self.slot] = None;
    }
}

/// Splits the huge page at `address` and brings home what is there of it. Whatever goes wrong, the
/// CPU comes back.
pub(super) fn bring_home(memory: &DeviceMemory, link: &Link, mm: &MmWithUser, address: usize) {
    kernel::task::might_sleep();
    let start = address & !(HUGE_BYTES - 1);
    for _ in 0..TRIES {
        if link.is_stopping() || attempt(memory, link, mm, start..start + HUGE_BYTES) {
            return;
        }
        fsleep(PAUSE);
    }
}

/// Returns whether there is nothing left to be done.
fn attempt(memory: &DeviceMemory, link: &Link, mm: &MmWithUser, range: Range<usize>) -> bool {
    let guard = MmapReadGuard::lock(mm);
    let Some(vma) = Vma::find(&guard, range.start) else {
        return true;
    };
    // Somebody else has split it or brought it home, if not unmapped.
    if !memory.is_huge_in(&vma, &range) {
        return true;
    }
    let lease = memory.ops().server().bulk_buffers.lease();
    let select = Select::Device;
    let Ok(home) = home::bring(memory, link, Trigger::Prefetch, vma, range, select, lease) else {
        return true;
    };
    let bytes = (home.moved * PAGE_SIZE) as u64;
    link.stats().bytes_to_system.add(bytes);
    // What finds no page stays, and the CPU comes back for it.
    home.collected > 0
}
