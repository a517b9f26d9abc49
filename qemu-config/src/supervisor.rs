// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is to be done about a device whose process died or hangs, as a state machine without processes, sockets or clocks.
//!
//! QEMU cannot be given a new process for a device that the guest has: a driver that starts such a device anew makes QEMU fail
//! an assertion. So the device is taken out of the guest first, a new process is started on the same memory, and the device is
//! plugged in again:
//!
//! ```text
//! Serving --ended--------------------> Leaving --out of the guest--> Resting --time passed--> Starting --plugged in--> Serving
//!         --hangs--> (process killed) ----^                             ^                        |
//!                                                                       +------- ended ----------+
//! ```
//!
//! A device that fails too often in a row is given up: it is out of the guest then, and stays so.

mod policy;

pub use policy::{OnLoss, Restarts};

use std::time::{Duration, Instant};

/// What happened to a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incident {
    /// Its process ended, as the text says.
    Ended(String),
    /// Its process does not answer; since when and how that was found out is for the log.
    Hangs(String),
    /// The guest has let the device go, and QEMU has nothing of it any more.
    OutOfGuest,
    /// The guest was asked to let the device go and has not, some time after [`Step::TakeOut`].
    NotOutOfGuest,
    /// The time of [`Step::Rest`] has passed.
    Rested,
    /// The device was plugged in again.
    PluggedIn,
    /// A new process could not be started, or the device not be plugged in.
    Failed(String),
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Kill the process; its end is told as [`Incident::Ended`].
    Kill,
    /// Have QEMU take the device out of the guest.
    TakeOut,
    /// Wait so long, and tell [`Incident::Rested`].
    Rest(Duration),
    /// Start a process on the same memory, and plug the device in.
    Start,
    /// Nothing more will be done for this device. The text says why.
    GiveUp(String),
}

/// How often a guest is asked to let a device go.
const MOST_ASKED: u32 = 12;

/// Where a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Its process serves it.
    Serving,
    /// Its process was told to end, because it hangs.
    Killed,
    /// Its process has ended, and the guest is to let it go.
    Leaving,
    /// It is out of the guest, until the next start.
    Resting,
    /// A process was started, and the device is being plugged in.
    Starting,
    /// It was given up.
    GivenUp,
}

/// One device.
#[derive(Debug)]
pub struct Supervisor {
    policy: Restarts,
    state: State,
    /// Starts without a calm time since.
    in_a_row: u32,
    /// How often the guest was asked to let the device go, this time.
    asked: u32,
    serving_since: Instant,
    /// Why the process ended last.
    cause: String,
}

impl Supervisor {
    /// A device that is in the guest and served from `now` on.
    #[must_use]
    pub fn new(policy: Restarts, now: Instant) -> Self {
        Self {
            policy,
            state: State::Serving,
            in_a_row: 0,
            asked: 0,
            serving_since: now,
            cause: String::new(),
        }
    }

    /// Whether the device is in the guest and its process serves it, as far as is known.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.state == State::Serving
    }

    /// What to do about an incident at `now`.
    pub fn next(&mut self, incident: Incident, now: Instant) -> Option<Step> {
        let (state, step) = match (self.state, incident) {
            (State::Serving, Incident::Hangs(cause)) => {
                self.cause = cause;
                (State::Killed, Some(Step::Kill))
            }
            (State::Serving, Incident::Ended(cause)) => {
                self.cause = cause;
                self.leave(now)
            }
            // The reason is that it hung, and not that it was killed for it.
            (State::Killed, Incident::Ended(_)) => self.leave(now),
            (State::Leaving, Incident::OutOfGuest) => self.rest(),
            // A guest that is still starting, or busy with the slot, does not hear it.
            (State::Leaving, Incident::NotOutOfGuest) if self.asked < MOST_ASKED => {
                self.asked += 1;
                (State::Leaving, Some(Step::TakeOut))
            }
            (State::Leaving, Incident::NotOutOfGuest) => {
                let text = format!(
                    "the guest does not let it go, asked {MOST_ASKED} times; its process ended: {}",
                    self.cause
                );
                (State::GivenUp, Some(Step::GiveUp(text)))
            }
            (State::Resting, Incident::Rested) => (State::Starting, Some(Step::Start)),
            (State::Starting, Incident::PluggedIn) => {
                self.serving_since = now;
                (State::Serving, None)
            }
            // It is not in the guest: nothing is to be taken out.
            (State::Starting, Incident::Failed(cause) | Incident::Ended(cause)) => {
                self.cause = cause;
                self.rest()
            }
            // What comes late says nothing new.
            (state, _) => (state, None),
        };
        self.state = state;
        step
    }

    fn leave(&mut self, now: Instant) -> (State, Option<Step>) {
        if now.saturating_duration_since(self.serving_since) >= self.policy.calm {
            self.in_a_row = 0;
        }
        self.asked = 1;
        (State::Leaving, Some(Step::TakeOut))
    }

    fn rest(&mut self) -> (State, Option<Step>) {
        if self.in_a_row >= self.policy.attempts {
            let times = match self.in_a_row {
                0 => "and is not to be started again".to_owned(),
                1 => "again after a new start".to_owned(),
                times => format!("again after {times} new starts in a row"),
            };
            let text = format!("its process failed {times}: {}", self.cause);
            return (State::GivenUp, Some(Step::GiveUp(text)));
        }
        let time = self.policy.time_before(self.in_a_row);
        self.in_a_row += 1;
        (State::Resting, Some(Step::Rest(time)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Restarts = Restarts {
        attempts: 2,
        back_off: Duration::from_millis(100),
        calm: Duration::from_secs(60),
        hang: Some(Duration::from_secs(5)),
    };

    fn ended() -> Incident {
        Incident::Ended("signal 9".to_owned())
    }

    /// A supervisor, and what it does about each incident at a time in seconds.
    struct Run(Supervisor, Instant);

    impl Run {
        fn new() -> Self {
            let now = Instant::now();
            Self(Supervisor::new(POLICY, now), now)
        }

        fn at(&mut self, seconds: u64, incident: Incident) -> Option<Step> {
            self.0.next(incident, self.1 + Duration::from_secs(seconds))
        }

        /// The process ends and is started again; the time that this took to rest.
        fn round(&mut self, seconds: u64) -> Duration {
            assert_eq!(self.at(seconds, ended()), Some(Step::TakeOut));
            let Some(Step::Rest(time)) = self.at(seconds, Incident::OutOfGuest) else {
                panic!("no rest");
            };
            assert_eq!(self.at(seconds, Incident::Rested), Some(Step::Start));
            assert!(!self.0.is_serving());
            assert_eq!(self.at(seconds, Incident::PluggedIn), None);
            assert!(self.0.is_serving());
            time
        }
    }

    #[test]
    fn a_device_is_taken_out_before_its_process_is_started() {
        let mut run = Run::new();
        assert_eq!(run.round(1), Duration::ZERO);
    }

    #[test]
    fn failures_in_a_row_are_further_apart_and_end() {
        let mut run = Run::new();
        assert_eq!(run.round(1), Duration::ZERO);
        assert_eq!(run.round(2), Duration::from_millis(100));
        assert_eq!(run.at(3, ended()), Some(Step::TakeOut));
        let Some(Step::GiveUp(text)) = run.at(3, Incident::OutOfGuest) else {
            panic!("not given up");
        };
        assert!(
            text.contains("2 new starts") && text.contains("signal 9"),
            "{text}"
        );
        assert_eq!(run.at(4, ended()), None);
    }

    #[test]
    fn a_calm_time_makes_up_for_failures() {
        let mut run = Run::new();
        for round in 1..10 {
            assert_eq!(run.round(round * 100), Duration::ZERO);
        }
    }

    #[test]
    fn a_process_that_hangs_is_killed_first() {
        let mut run = Run::new();
        let hangs = Incident::Hangs("no answer for 5 s".to_owned());
        assert_eq!(run.at(1, hangs.clone()), Some(Step::Kill));
        assert_eq!(run.at(1, hangs), None);
        assert_eq!(run.at(2, ended()), Some(Step::TakeOut));
        assert!(run.0.cause.contains("no answer"));
    }

    #[test]
    fn a_guest_that_does_not_let_go_is_asked_again_and_not_for_ever() {
        let mut run = Run::new();
        assert_eq!(run.at(1, ended()), Some(Step::TakeOut));
        for _ in 1..MOST_ASKED {
            assert_eq!(run.at(2, Incident::NotOutOfGuest), Some(Step::TakeOut));
        }
        assert!(matches!(
            run.at(3, Incident::NotOutOfGuest),
            Some(Step::GiveUp(_))
        ));
    }

    #[test]
    fn a_process_that_ends_while_it_starts_is_started_again() {
        let mut run = Run::new();
        run.at(1, ended());
        run.at(1, Incident::OutOfGuest);
        assert_eq!(run.at(1, Incident::Rested), Some(Step::Start));
        assert_eq!(
            run.at(1, ended()),
            Some(Step::Rest(Duration::from_millis(100)))
        );
        assert_eq!(run.at(1, Incident::Rested), Some(Step::Start));
        let failed = Incident::Failed("no such file".to_owned());
        assert!(matches!(run.at(1, failed), Some(Step::GiveUp(_))));
    }
}
