// SPDX-License-Identifier: GPL-2.0-only

//! What happens when a device does not answer, when the system sleeps, and when the transport resets the device.

use super::{
    control::Question,
    state::{
        Link,
        DEAD,
        RECOVERING,
        RUNNING,
        STRIKES, //
    },
    why::Why, //
};
use crate::sys::{
    services::{
        log_limit::{
            error_limited,
            warn_limited, //
        },
        trace, //
    },
    virtio::request::{
        Idle,
        Submitted, //
    }, //
};
use hmm_protocol::Status;
use kernel::{
    prelude::*,
    sync::atomic::ordering::{
        Acquire,
        Relaxed,
        Release, //
    },
    time::{
        delay::fsleep,
        Delta,
        Instant,
        Monotonic, //
    }, //
};

/// How often a request looks whether the system is awake again.
const SLEEP_POLL: Delta = Delta::from_millis(10);

/// How long a request waits for a device that was stopped for a reset or for sleep. A reset that fails in the bus never
/// starts it again.
const STOP_PATIENCE: Delta = Delta::from_millis(30_000);
/// How long a device may take to say that it is there.
const PING_PATIENCE: Delta = Delta::from_millis(2_000);

impl Link {
    /// A request was not answered in time. Starts the device anew unless the answer came after
    /// all. When this returns the device has the request no more, and works again or is dead.
    pub(super) fn not_answered(&self, submitted: Submitted) -> Option<Idle> {
        self.stats.timeouts.add(1);
        let guard = self.recovery.lock();
        if !submitted.is_returned() && !self.is_dead() {
            self.start_anew(Why::NoAnswer);
        }
        drop(guard);
        submitted.into_returned()
    }

    /// A queue does not accept requests, in the given epoch. Starts the device anew unless another
    /// task did.
    pub(super) fn queue_broken(&self, epoch: u32) {
        self.recover_since(epoch, Why::BrokenQueue);
    }

    /// The device refused a batch of the given epoch, since it does not have the session. Has it adopt its contents again
    /// unless another task did.
    pub(super) fn session_lost(&self, epoch: u32) {
        self.recover_since(epoch, Why::NoSession);
    }

    fn recover_since(&self, epoch: u32, why: Why) {
        let guard = self.recovery.lock();
        if self.epoch.load(Relaxed) == epoch && !self.is_dead() {
            self.recover(why);
        }
        drop(guard);
    }

    /// Counts why, and starts the device anew, or gives it up. The caller holds `recovery`.
    pub(super) fn recover(&self, why: Why) {
        match why {
            Why::NoAnswer => self.stats.timeouts.add(1),
            Why::NoSession => self.stats.loss.lost_sessions.add(1),
            Why::BrokenQueue => {}
        }
        self.start_anew(why);
    }

    fn start_anew(&self, why: Why) {
        self.state.store(RECOVERING, Release);
        let strikes = self.strikes.fetch_add(1, Relaxed) + 1;
        // What restarts devices elsewhere does so with those that do not answer. This one did just now.
        let may_restart = self.may_restart || why == Why::NoSession;
        let result = if strikes > STRIKES || !may_restart {
            Err((why.name(), ETIMEDOUT))
        } else {
            warn_limited!(self.device(), "{}; starting it anew\n", why.sentence());
            self.epoch.fetch_add(1, Relaxed);
            match self.queues.restart() {
                Ok(()) => {
                    self.events.take_back(self);
                    self.open_session(Some(self.generation()))
                        .map_err(|error| ("not_adopted", error))
                }
                Err(error) => Err(("no_restart", error)),
            }
        };
        match result {
            Ok(()) => {
                warn_limited!(
                    self.device(),
                    "the device works again, with its memory as it was\n"
                );
                self.state.store(RUNNING, Release);
            }
            Err((cause, error)) => self.give_up(cause, error),
        }
    }

    /// Gives the device up, and says why. The caller holds `recovery`.
    fn give_up(&self, cause: &'static str, error: Error) {
        error_limited!(
            self.device(),
            "the device is given up ({})\n",
            error.to_errno()
        );
        trace::loss(self.device(), cause, self.generation());
        self.state.store(DEAD, Release);
        self.queues.stop();
        self.events.take_back(self);
        // No request is under way any more, and none touches memory.
        self.loss.lose();
    }

    /// Gives up a device that was stopped and that nothing starts again.
    fn give_up_stopped(&self) {
        let guard = self.recovery.lock();
        if self.state.load(Acquire) == RECOVERING {
            self.give_up("no_restart", ETIMEDOUT);
        }
        drop(guard);
    }

    /// Makes sure that the device answers, before it is left. One that does not is given up, and not started anew: the
    /// host may have taken it away, and is only to be told that it is not used any more.
    pub(crate) fn expect_alive(&self) {
        if self.ready().is_err() {
            return;
        }
        let patience = self.timeout.min(PING_PATIENCE);
        let guard = self.recovery.lock();
        if !self.is_dead() {
            match self.control.ask_within(self, Question::Ping, patience) {
                Ok(reply) if reply.status == Status::Ok.to_wire() => {}
                _ => self.give_up("no_answer", ETIMEDOUT),
            }
        }
        drop(guard);
    }

    /// Stops the device until [`Link::resume`]. Requests wait meanwhile.
    pub(crate) fn suspend(&self) {
        let guard = self.recovery.lock();
        if !self.is_dead() {
            self.state.store(RECOVERING, Release);
        }
        self.queues.pause();
        self.events.take_back(self);
        drop(guard);
    }

    /// Starts the device after [`Link::suspend`], with its memory as it was.
    ///
    /// # Errors
    ///
    /// The device does not work, or has lost its contents. It is given up then.
    pub(crate) fn resume(&self) -> Result {
        let guard = self.recovery.lock();
        if self.is_dead() {
            return Err(ENODEV);
        }
        self.epoch.fetch_add(1, Relaxed);
        let result = match self.queues.restart() {
            Ok(()) => self
                .open_session(Some(self.generation()))
                .map_err(|error| ("not_adopted", error)),
            Err(error) => Err(("no_restart", error)),
        };
        let result = match result {
            Ok(()) => {
                self.state.store(RUNNING, Release);
                Ok(())
            }
            Err((cause, error)) => {
                self.give_up(cause, error);
                Err(error)
            }
        };
        drop(guard);
        result
    }

    /// Waits while the device is started anew, is reset by the transport, or the system sleeps. A device that is not started
    /// again for long is given up.
    ///
    /// # Errors
    ///
    /// `ENODEV`: the device is dead.
    pub(crate) fn ready(&self) -> Result {
        let begin = Instant::<Monotonic>::now();
        loop {
            match self.state.load(Acquire) {
                RUNNING => return Ok(()),
                RECOVERING => drop(self.recovery.lock()),
                _ => return Err(ENODEV),
            }
            if self.state.load(Acquire) == RECOVERING {
                if begin.elapsed() >= STOP_PATIENCE {
                    self.give_up_stopped();
                }
                fsleep(SLEEP_POLL);
            }
        }
    }
}
