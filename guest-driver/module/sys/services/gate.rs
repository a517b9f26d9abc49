// SPDX-License-Identifier: GPL-2.0-only

//! A gate that many may pass and sleep behind, until it is closed for good.

use core::ops::Deref;
use kernel::{
    new_srcu,
    prelude::*,
    sync::{
        atomic::{
            ordering::{
                Relaxed,
                Release, //
            },
            AtomicFlag, //
        },
        srcu,
        Srcu, //
    }, //
};

/// A value that can be used until the gate is closed.
///
/// Unlike `Revocable`, users may sleep while they are inside.
///
/// # Examples
///
/// ```ignore
/// let gate = KBox::pin_init(Gate::new(Ok(7)), GFP_KERNEL)?;
/// assert!(gate.enter().is_some_and(|entered| *entered == 7));
/// gate.close();
/// assert!(gate.enter().is_none());
/// ```
#[pin_data]
pub(crate) struct Gate<T> {
    open: AtomicFlag,
    #[pin]
    srcu: Srcu,
    #[pin]
    value: T,
}

impl<T> Gate<T> {
    /// An open gate.
    pub(crate) fn new(value: impl PinInit<T, Error>) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            open: AtomicFlag::new(true),
            srcu <- new_srcu!("Gate::srcu"),
            value <- value,
        })
    }

    /// Passes the gate; `None` if it is closed.
    pub(crate) fn enter(&self) -> Option<Entered<'_, T>> {
        let guard = self.srcu.read_lock();
        // ORDERING: The flag is read within the SRCU section, so `close` either is seen here or
        // waits for this section.
        self.open.load(Relaxed).then_some(Entered {
            value: &self.value,
            _guard: guard,
        })
    }

    /// Closes the gate and waits until nobody is inside. May sleep. Whoever sleeps inside must be
    /// sure to wake up.
    pub(crate) fn close(&self) {
        self.open.store(false, Release);
        self.srcu.synchronize();
    }

    /// The value, whether the gate is open or not: for the one who closes it.
    pub(crate) fn value(&self) -> &T {
        &self.value
    }
}

/// Proof that the gate was open and is not closed yet.
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

#[kunit_tests(virtio_hmm_gate)]
mod tests {
    use super::*;

    fn gate() -> Result<Pin<KBox<Gate<u32>>>> {
        KBox::pin_init(Gate::new(Ok(7)), GFP_KERNEL)
    }

    #[test]
    fn an_open_gate_lets_many_in() -> Result {
        let gate = gate()?;
        let (first, second) = (gate.enter(), gate.enter());
        assert!(first.is_some_and(|entered| *entered == 7));
        assert!(second.is_some_and(|entered| *entered == 7));
        Ok(())
    }

    #[test]
    fn a_closed_gate_lets_nobody_in() -> Result {
        let gate = gate()?;
        drop(gate.enter());
        gate.close();
        assert!(gate.enter().is_none());
        // The one who closed it still has the value.
        assert_eq!(*gate.value(), 7);
        gate.close();
        Ok(())
    }
}
