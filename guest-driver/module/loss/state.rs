// SPDX-License-Identifier: GPL-2.0-only

//! The state of one pool's device.
//!
//! ```text
//!            lose()              expire()
//! Present ------------> Lost ---------------> Gone
//!         <------------      after the wait,
//!           came_back()      or at an unload
//! ```

use super::wakeup::Wakeup;
use kernel::{
    new_mutex,
    new_poll_condvar,
    prelude::*,
    sync::{
        atomic::{
            ordering::{
                Acquire,
                Release, //
            },
            Atomic, //
        },
        poll::PollCondVar,
        Arc,
        CondVarTimeoutResult,
        Mutex, //
    },
    time::{
        msecs_to_jiffies,
        Delta,
        Instant,
        Monotonic, //
    }, //
};

/// How often a caller looks whether the device is gone, milliseconds.
const LOOK_MS: u32 = 100;

/// Whether there is a device.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    /// A device works with the pool, or is about to, or has left it empty.
    Present,
    /// The device was lost. It may come back with its contents.
    Lost,
    /// It has not come back in time. Its contents are lost.
    Gone,
}

const PRESENT: u32 = 0;
const LOST: u32 = 1;
const GONE: u32 = 2;

/// What happened so far.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LossCounts {
    /// How often the device was lost.
    pub(crate) losses: u64,
    /// How often it came back.
    pub(crate) returns: u64,
    /// How often a device came that claimed to be the lost one and was refused.
    pub(crate) refusals: u64,
}

struct State {
    /// Since when the device is lost.
    since: Option<Instant<Monotonic>>,
    counts: LossCounts,
}

/// Whether the device of a pool is there.
///
/// # Invariants
///
/// `presence` is only written with `state` locked. `since` is set if and only if it is [`LOST`].
#[pin_data]
pub(crate) struct Loss {
    presence: Atomic<u32>,
    #[pin]
    state: Mutex<State>,
    #[pin]
    changed: PollCondVar,
    /// How long users wait for the device.
    patience: Delta,
    keeper: Arc<Wakeup>,
}

impl Loss {
    /// The device is there. `keeper` is woken at each change.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(patience: Delta, keeper: Arc<Wakeup>) -> Result<Arc<Self>> {
        let state = State {
            since: None,
            counts: LossCounts::default(),
        };
        Arc::pin_init(
            pin_init!(Self {
                presence: Atomic::new(PRESENT),
                state <- new_mutex!(state, "loss::Loss::state"),
                changed <- new_poll_condvar!("loss::Loss::changed"),
                patience,
                keeper,
            }),
            GFP_KERNEL,
        )
    }

    /// Whether there is a device.
    pub(crate) fn presence(&self) -> Presence {
        match self.presence.load(Acquire) {
            PRESENT => Presence::Present,
            LOST => Presence::Lost,
            _ => Presence::Gone,
        }
    }

    /// Has those that wait for a change look again: the device goes in order.
    pub(crate) fn announce(&self) {
        self.changed.notify_all();
    }

    /// What is woken when the presence changes.
    pub(crate) fn changed(&self) -> &PollCondVar {
        &self.changed
    }

    /// What happened so far.
    pub(crate) fn counts(&self) -> LossCounts {
        self.state.lock().counts
    }

    /// The device is lost. Does nothing unless it was there.
    pub(crate) fn lose(&self) {
        self.change(|state, presence| {
            if presence != PRESENT {
                return None;
            }
            state.since = Some(Instant::now());
            state.counts.losses += 1;
            Some(LOST)
        });
    }

    /// The device is back with its contents.
    ///
    /// # Errors
    ///
    /// `ESTALE`: it came too late, and users were told that the contents are lost.
    pub(crate) fn came_back(&self) -> Result {
        let is_back = self.change(|state, presence| {
            if presence != LOST {
                return None;
            }
            state.since = None;
            state.counts.returns += 1;
            Some(PRESENT)
        });
        is_back.then_some(()).ok_or(ESTALE)
    }

    /// A device was refused that claimed to be this one.
    pub(crate) fn refuse(&self) {
        self.state.lock().counts.refusals += 1;
        self.keeper.wake();
    }

    /// The contents are lost for good. Does nothing unless the device is lost.
    pub(crate) fn expire(&self) {
        self.change(|state, presence| {
            state.since = None;
            (presence == LOST).then_some(GONE)
        });
    }

    /// The contents are lost for good if the device has been away for too long.
    pub(crate) fn expire_if_overdue(&self) {
        let is_overdue =
            (self.state.lock().since).is_some_and(|since| since.elapsed() >= self.patience);
        if is_overdue {
            self.expire();
        }
    }

    /// Waits while the device is lost.
    ///
    /// # Errors
    ///
    /// `ERESTARTSYS`: a signal came before.
    pub(crate) fn wait_while_lost(&self) -> Result {
        let mut state = self.state.lock();
        while self.presence() == Presence::Lost {
            let look = msecs_to_jiffies(LOOK_MS);
            if let CondVarTimeoutResult::Signal { .. } =
                (self.changed).wait_interruptible_timeout(&mut state, look)
            {
                return Err(ERESTARTSYS);
            }
        }
        Ok(())
    }

    /// Changes the presence to what `change` says, if it does.
    fn change(&self, change: impl FnOnce(&mut State, u32) -> Option<u32>) -> bool {
        let mut state = self.state.lock();
        let Some(new) = change(&mut state, self.presence.load(Acquire)) else {
            return false;
        };
        // INVARIANT: The state is locked, and `change` keeps `since` in step.
        // ORDERING: Release: a task that sees the device come back sees it attached.
        self.presence.store(new, Release);
        drop(state);
        self.changed.notify_all();
        self.keeper.wake();
        true
    }
}

#[kunit_tests(virtio_hmm_loss)]
mod tests {
    use super::*;

    fn loss(patience: Delta) -> Result<Arc<Loss>> {
        Loss::new(patience, Arc::pin_init(Wakeup::new(), GFP_KERNEL)?)
    }

    const LONG: Delta = Delta::from_millis(3_600_000);

    #[test]
    fn a_device_comes_back() -> Result {
        let loss = loss(LONG)?;
        assert!(loss.presence() == Presence::Present);
        assert_eq!(loss.came_back().err(), Some(ESTALE));
        loss.lose();
        loss.lose();
        loss.expire_if_overdue();
        assert!(loss.presence() == Presence::Lost);
        loss.came_back()?;
        assert!(loss.presence() == Presence::Present);
        loss.wait_while_lost()?;
        let counts = loss.counts();
        assert!(counts.losses == 1 && counts.returns == 1 && counts.refusals == 0);
        Ok(())
    }

    #[test]
    fn a_device_that_is_gone_stays_so() -> Result {
        let loss = loss(Delta::ZERO)?;
        loss.expire();
        loss.expire_if_overdue();
        assert!(loss.presence() == Presence::Present);
        loss.lose();
        loss.expire_if_overdue();
        assert!(loss.presence() == Presence::Gone);
        assert_eq!(loss.came_back().err(), Some(ESTALE));
        loss.lose();
        assert!(loss.presence() == Presence::Gone && loss.counts().losses == 1);
        Ok(())
    }

    #[test]
    fn each_change_wakes_the_keeper() -> Result {
        let wakeup = Arc::pin_init(Wakeup::new(), GFP_KERNEL)?;
        let loss = Loss::new(LONG, wakeup.clone())?;
        loss.lose();
        assert!(wakeup.wait(None));
        loss.came_back()?;
        loss.refuse();
        assert!(wakeup.wait(None));
        wakeup.end();
        assert!(!wakeup.wait(Some(1)));
        Ok(())
    }
}
