// SPDX-License-Identifier: GPL-2.0-only

//! A slot for a value that many threads use at once, and that can be taken out and replaced.

use core::{
    cell::UnsafeCell,
    ops::Deref, //
};
use kernel::{
    new_mutex,
    new_srcu,
    prelude::*,
    sync::{
        atomic::{
            ordering::{
                Acquire,
                Release, //
            },
            AtomicFlag, //
        },
        srcu,
        Mutex,
        Srcu, //
    }, //
};

/// A value that can be used until it is taken out, and again once another is put in.
///
/// Unlike with `Revocable`, users may sleep while they use the value. [`Slot::take`] waits for
/// them, so each of them must be sure to wake up.
///
/// # Lock order
///
/// `Slot::change` > the SRCU grace period. A thread that uses the value must not change the slot.
///
/// # Invariants
///
/// `value` is only written with `change` locked, while `is_open` is false and no user is left. While
/// `is_open` is true it is `Some`.
///
/// # Examples
///
/// ```ignore
/// let slot = KBox::pin_init(Slot::new(), GFP_KERNEL)?;
/// slot.put(7)?;
/// assert!(slot.enter().is_some_and(|entered| *entered == 7));
/// assert_eq!(slot.take(), Some(7));
/// assert!(slot.enter().is_none());
/// ```
#[pin_data]
pub(crate) struct Slot<T> {
    is_open: AtomicFlag,
    #[pin]
    srcu: Srcu,
    #[pin]
    change: Mutex<()>,
    value: UnsafeCell<Option<T>>,
}

// SAFETY: The value is used through `&T` on any thread and moved out on any thread.
unsafe impl<T: Send + Sync> Sync for Slot<T> {}

impl<T> Slot<T> {
    /// An empty slot.
    pub(crate) fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            is_open: AtomicFlag::new(false),
            srcu <- new_srcu!("Slot::srcu"),
            change <- new_mutex!((), "Slot::change"),
            value: UnsafeCell::new(None),
        })
    }

    /// Puts a value in.
    ///
    /// # Errors
    ///
    /// `EBUSY`: there is one already; the new one is dropped.
    pub(crate) fn put(&self, value: T) -> Result {
        let guard = self.change.lock();
        if self.is_open.load(Acquire) {
            return Err(EBUSY);
        }
        // SAFETY: `change` is locked and the slot is closed. The `take` that closed it waited for
        // its users, and later ones see that it is closed.
        unsafe { *self.value.get() = Some(value) };
        // INVARIANT: The value is there.
        self.is_open.store(true, Release);
        drop(guard);
        Ok(())
    }

    /// The value, to be used until the result is dropped; `None` if the slot is empty.
    pub(crate) fn enter(&self) -> Option<Entered<'_, T>> {
        let guard = self.srcu.read_lock();
        // ORDERING: The flag is read within the SRCU section, so `take` either is seen here or waits
        // for this section. Acquire: the value that `put` wrote is seen with the flag.
        if !self.is_open.load(Acquire) {
            return None;
        }
        // SAFETY: By the type invariant the value is not written while the slot is open, nor
        // afterwards until this section has ended.
        let value = unsafe { (*self.value.get()).as_ref()? };
        Some(Entered {
            value,
            _guard: guard,
        })
    }

    /// Takes the value out once its last user is done. May sleep.
    pub(crate) fn take(&self) -> Option<T> {
        let guard = self.change.lock();
        self.is_open.store(false, Release);
        self.srcu.synchronize();
        // SAFETY: `change` is locked, the slot is closed, and the users that came before are gone.
        let value = unsafe { (*self.value.get()).take() };
        drop(guard);
        value
    }
}

/// The value of a slot, which stays there meanwhile.
pub(crate) struct Entered<'a, T> {
    value: &'a T,
    _guard: srcu::Guard<'a>,
}

impl<T> Deref for Entered<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value
    }
}

#[kunit_tests(virtio_hmm_slot)]
mod tests {
    use super::*;

    fn slot() -> Result<Pin<KBox<Slot<u32>>>> {
        KBox::pin_init(Slot::new(), GFP_KERNEL)
    }

    #[test]
    fn many_use_the_value_at_once() -> Result {
        let slot = slot()?;
        slot.put(7)?;
        let (first, second) = (slot.enter(), slot.enter());
        assert!(first.is_some_and(|entered| *entered == 7));
        assert!(second.is_some_and(|entered| *entered == 7));
        Ok(())
    }

    #[test]
    fn an_empty_slot_lets_nobody_in() -> Result {
        let slot = slot()?;
        assert!(slot.enter().is_none());
        assert_eq!(slot.take(), None);
        slot.put(7)?;
        drop(slot.enter());
        assert_eq!(slot.take(), Some(7));
        assert!(slot.enter().is_none());
        assert_eq!(slot.take(), None);
        Ok(())
    }

    #[test]
    fn a_slot_is_used_again() -> Result {
        let slot = slot()?;
        slot.put(7)?;
        assert_eq!(slot.put(8).err(), Some(EBUSY));
        assert!(slot.enter().is_some_and(|entered| *entered == 7));
        assert_eq!(slot.take(), Some(7));
        slot.put(8)?;
        assert!(slot.enter().is_some_and(|entered| *entered == 8));
        Ok(())
    }
}
