// SPDX-License-Identifier: GPL-2.0-only

//! A fixed number of things that are used again and again.

use kernel::{
    prelude::*,
    sync::{
        CondVar,
        LockClassKey,
        SpinLock, //
    }, //
};

/// The name and the class by which lockdep knows a lock: a generic type has none of its own.
pub(crate) type LockClass = (&'static CStr, Pin<&'static LockClassKey>);

/// Things that are made once and taken when they are needed, so that what uses them allocates
/// nothing, and their number bounds how much is on its way at once.
///
/// # Examples
///
/// ```ignore
/// let buffers = Reserve::new(
///     2,
///     || Ok(KVec::from_elem(0u8, PAGE_SIZE, GFP_KERNEL)?),
///     (c"buffers::idle", static_lock_class!()),
///     (c"buffers::returned", static_lock_class!()),
/// );
/// let buffers = KBox::pin_init(buffers, GFP_KERNEL)?;
/// let buffer = buffers.take();
/// // It is exclusive until it is given back.
/// buffers.give(buffer);
/// ```
#[pin_data]
pub(crate) struct Reserve<T> {
    #[pin]
    idle: SpinLock<Idle<T>>,
    #[pin]
    returned: CondVar,
}

struct Idle<T> {
    things: KVec<T>,
    /// Tasks that sleep until there is one.
    waiting: usize,
}

impl<T> Reserve<T> {
    /// `count` things, each from `make`. `idle` and `returned` name the lock around those that
    /// are free, and the condition variable of waiters.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; those of `make`.
    pub(crate) fn new(
        count: usize,
        mut make: impl FnMut() -> Result<T>,
        idle: LockClass,
        returned: LockClass,
    ) -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(move || {
            let mut things = KVec::with_capacity(count, GFP_KERNEL)?;
            for _ in 0..count {
                things.push(make()?, GFP_KERNEL)?;
            }
            Ok(try_pin_init!(Self {
                idle <- SpinLock::new(Idle { things, waiting: 0 }, idle.0, idle.1),
                returned <- CondVar::new(returned.0, returned.1),
            }? Error))
        })
    }

    /// Keeps `count` things at most, at least one.
    pub(crate) fn limit(&self, count: usize) {
        loop {
            // Dropped after the lock.
            let surplus = {
                let mut idle = self.idle.lock();
                if idle.things.len() <= count.max(1) {
                    return;
                }
                idle.things.pop()
            };
            drop(surplus);
        }
    }

    /// Takes a thing; sleeps while there is none. A caller that has one must not wait for another
    /// in this way, or for anything that is not bounded.
    pub(crate) fn take(&self) -> T {
        let mut idle = self.idle.lock();
        loop {
            if let Some(thing) = idle.things.pop() {
                return thing;
            }
            idle.waiting += 1;
            self.returned.wait(&mut idle);
            idle.waiting -= 1;
        }
    }

    /// Takes a thing if there is one.
    pub(crate) fn try_take(&self) -> Option<T> {
        self.idle.lock().things.pop()
    }

    /// Gives a thing back that was taken here.
    pub(crate) fn give(&self, thing: T) {
        let mut idle = self.idle.lock();
        // The vector has room for all that were made; nothing else is ever given.
        let result = idle.things.push_within_capacity(thing);
        debug_assert!(result.is_ok());
        let is_awaited = idle.waiting > 0;
        drop(idle);
        if is_awaited {
            self.returned.notify_one();
        }
    }
}

#[kunit_tests(virtio_hmm_reserve)]
mod tests {
    use super::*;
    use kernel::static_lock_class;

    fn reserve(count: usize) -> Result<Pin<KBox<Reserve<usize>>>> {
        let mut made = 0;
        let reserve = Reserve::new(
            count,
            move || {
                made += 1;
                Ok(made)
            },
            (c"kunit::idle", static_lock_class!()),
            (c"kunit::returned", static_lock_class!()),
        );
        KBox::pin_init(reserve, GFP_KERNEL)
    }

    #[test]
    fn each_thing_is_had_once() -> Result {
        let reserve = reserve(2)?;
        let (one, other) = (reserve.take(), reserve.take());
        assert!(one != other);
        assert!(reserve.try_take().is_none());
        reserve.give(one);
        assert_eq!(reserve.try_take(), Some(one));
        reserve.give(other);
        assert_eq!(reserve.take(), other);
        Ok(())
    }

    #[test]
    fn a_limit_leaves_one_at_least() -> Result {
        let reserve = reserve(5)?;
        reserve.limit(7);
        reserve.limit(3);
        reserve.limit(0);
        assert!(reserve.try_take().is_some());
        assert!(reserve.try_take().is_none());
        Ok(())
    }

    #[test]
    fn what_cannot_be_made_is_an_error() {
        let reserve = Reserve::<usize>::new(
            2,
            || Err(EIO),
            (c"kunit::idle", static_lock_class!()),
            (c"kunit::returned", static_lock_class!()),
        );
        assert!(KBox::pin_init(reserve, GFP_KERNEL).is_err());
    }
}
