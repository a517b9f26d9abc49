// SPDX-License-Identifier: GPL-2.0-only

//! The numbers of contexts. A number stays its owner's also when the device has been reset, so that what
//! is on its way to one context never reaches another.

use crate::link::Link;
use core::ops::Range;
use hmm_protocol::FaultAccess;
use kernel::{
    mm::Mm,
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    }, //
};

/// A job waits for a page.
#[derive(Clone, Copy)]
pub(crate) struct DeviceFault {
    /// The number by which it is answered.
    pub(crate) number: u64,
    /// The virtual address, bytes.
    pub(crate) address: u64,
    /// What the job is about to do there.
    pub(crate) access: FaultAccess,
    /// Bytes that it is going to access from the address on, as far as the device knows.
    pub(crate) bytes: u64,
}

/// The owner of a context.
pub(crate) trait ContextOwner: Send + Sync {
    /// Answers a device fault. May sleep; several run at once.
    fn serve(&self, fault: DeviceFault);

    /// Ends the context for good: no job of it accesses memory when this returns. May sleep.
    fn close(&self);

    /// The device of `link` was reset and goes. The context is created anew if it comes back.
    fn lose(&self, link: &Link);

    /// What is advised about `range` of `mm` has changed. A context of that address space asks for pages again at the
    /// next access. May sleep.
    fn advised(&self, mm: &Mm, range: &Range<usize>);
}

/// Owners by number.
#[pin_data]
pub(crate) struct Numbers {
    #[pin]
    owners: Mutex<Owners>,
}

enum Slot {
    Free,
    Reserved,
    Owned(Arc<dyn ContextOwner>),
}

struct Owners {
    by_number: KVVec<Slot>,
    is_closed: bool,
}

impl Numbers {
    /// No number has an owner.
    pub(crate) fn new() -> impl PinInit<Self> {
        let owners = Owners {
            by_number: KVVec::new(),
            is_closed: false,
        };
        pin_init!(Self {
            owners <- new_mutex!(owners, "contexts::Numbers::owners"),
        })
    }

    /// Reserves the lowest free number below `most` until [`Numbers::release`].
    ///
    /// # Errors
    ///
    /// `ENOSPC` all are taken, `ENOMEM`.
    pub(crate) fn take(&self, most: u32) -> Result<u32> {
        let mut owners = self.owners.lock();
        let is_free = |slot: &Slot| matches!(slot, Slot::Free);
        let free = owners.by_number.iter().position(is_free);
        let number = free.unwrap_or(owners.by_number.len());
        let number = u32::try_from(number).ok().filter(|&number| number < most);
        let number = number.ok_or(ENOSPC)?;
        match owners.by_number.get_mut(number as usize) {
            Some(slot) => *slot = Slot::Reserved,
            None => owners.by_number.push(Slot::Reserved, GFP_KERNEL)?,
        }
        Ok(number)
    }

    /// Names the owner of a reserved number.
    ///
    /// # Errors
    ///
    /// `ENODEV`: the device is going.
    pub(crate) fn own(&self, number: u32, owner: Arc<dyn ContextOwner>) -> Result {
        let mut owners = self.owners.lock();
        if owners.is_closed {
            return Err(ENODEV);
        }
        let slot = owners.by_number.get_mut(number as usize).ok_or(EINVAL)?;
        *slot = Slot::Owned(owner);
        Ok(())
    }

    /// Nothing of this context is on its way any more.
    pub(crate) fn release(&self, number: u32) {
        let mut owners = self.owners.lock();
        let slot = owners.by_number.get_mut(number as usize);
        let owner = slot.map(|slot| core::mem::replace(slot, Slot::Free));
        drop(owners);
        // Its last reference takes time.
        drop(owner);
    }

    /// The owner of a number.
    pub(crate) fn get(&self, number: u32) -> Option<Arc<dyn ContextOwner>> {
        match self.owners.lock().by_number.get(number as usize)? {
            Slot::Owned(owner) => Some(owner.clone()),
            Slot::Free | Slot::Reserved => None,
        }
    }

    /// Lets contexts begin again, after [`Numbers::close`].
    pub(crate) fn reopen(&self) {
        self.owners.lock().is_closed = false;
    }

    /// Closes all contexts, and lets none begin any more.
    pub(crate) fn close(&self) {
        self.owners.lock().is_closed = true;
        self.each(|owner| owner.close());
    }

    /// Tells all owners that the device of `link`, which was reset, goes.
    pub(crate) fn lose(&self, link: &Link) {
        self.each(|owner| owner.lose(link));
    }

    /// Tells all owners that what is advised about `range` of `mm` has changed.
    pub(crate) fn advised(&self, mm: &Mm, range: &Range<usize>) {
        self.each(|owner| owner.advised(mm, range));
    }

    /// Calls `act` with each owner. It may take numbers, and give them back.
    fn each(&self, act: impl Fn(&dyn ContextOwner)) {
        let count = self.owners.lock().by_number.len();
        for number in 0..count {
            // CAST: There are fewer than 2^32 contexts.
            if let Some(owner) = self.get(number as u32) {
                act(&*owner);
            }
        }
    }
}

#[kunit_tests(virtio_hmm_contexts)]
mod tests {
    use super::*;
    use kernel::sync::atomic::{
        ordering::Relaxed,
        Atomic, //
    };

    struct Owner(Arc<Atomic<u32>>);

    impl ContextOwner for Owner {
        fn serve(&self, _fault: DeviceFault) {}

        fn close(&self) {
            self.0.fetch_add(1, Relaxed);
        }

        fn lose(&self, _link: &Link) {}

        fn advised(&self, _mm: &Mm, _range: &Range<usize>) {}
    }

    #[test]
    fn the_lowest_free_number_is_taken() -> Result {
        let closed = Arc::new(Atomic::new(0), GFP_KERNEL)?;
        let numbers = KBox::pin_init(Numbers::new(), GFP_KERNEL)?;
        let take = || {
            let number = numbers.take(3)?;
            assert!(numbers.get(number).is_none());
            let owner: Arc<dyn ContextOwner> = Arc::new(Owner(closed.clone()), GFP_KERNEL)?;
            numbers.own(number, owner)?;
            Ok::<_, Error>(number)
        };
        assert_eq!((take()?, take()?, take()?), (0, 1, 2));
        assert_eq!(take().err(), Some(ENOSPC));
        numbers.release(1);
        assert!(numbers.get(1).is_none() && numbers.get(2).is_some() && numbers.get(3).is_none());
        assert_eq!(take()?, 1);
        numbers.close();
        assert_eq!(closed.load(Relaxed), 3);
        numbers.release(0);
        assert_eq!(take().err(), Some(ENODEV));
        Ok(())
    }
}
