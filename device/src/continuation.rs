// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whether a negotiation of features is that of a driver that starts, or of a guest that goes on.
//!
//! QEMU negotiates anew in both cases, and says nothing else of it. But a driver that starts has reset its queues, which begin
//! at position 0, and a guest that goes on has them where they were stopped. The control queue tells: no session is open
//! before something was asked there. At position 0, where it is once in 65536 requests, a guest that goes on is taken for a
//! driver that starts, which must open its session again.

use hmm_protocol::CONTROL_QUEUE;

/// What is known of the driver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Continuation {
    /// It runs, or there is none.
    #[default]
    No,
    /// The control queue was stopped at this position.
    Stopped(u16),
    /// The same, and features were negotiated since. Nothing is served before the control queue begins.
    Negotiated(u16),
}

impl Continuation {
    /// Queue `index` was stopped at `position`.
    pub(crate) fn stopped(&mut self, index: u16, position: u16) {
        if index == CONTROL_QUEUE {
            *self = Self::Stopped(position);
        }
    }

    /// Features were negotiated; `may_go_on` says whether they are those of before, while a session is open and all queues are
    /// stopped. Returns whether the driver may be the one of before.
    pub(crate) fn negotiated(&mut self, may_go_on: bool) -> bool {
        *self = match *self {
            Self::Stopped(position) if may_go_on && position != 0 => Self::Negotiated(position),
            _ => Self::No,
        };
        *self != Self::No
    }

    /// Queue `index` begins at `position`, if that was told. Returns whether the driver turns out to be another one.
    pub(crate) fn begins(&mut self, index: u16, position: Option<u16>) -> bool {
        match *self {
            Self::Negotiated(before) => {
                *self = Self::No;
                index != CONTROL_QUEUE || position != Some(before)
            }
            // Without a negotiation the driver is the one of before.
            Self::No | Self::Stopped(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BULK: u16 = 3;

    fn negotiated() -> Continuation {
        let mut continuation = Continuation::default();
        continuation.stopped(BULK, 70);
        continuation.stopped(CONTROL_QUEUE, 7);
        assert!(continuation.negotiated(true));
        continuation
    }

    #[test]
    fn a_driver_whose_control_queue_goes_on_is_the_same() {
        let mut continuation = negotiated();
        assert!(!continuation.begins(CONTROL_QUEUE, Some(7)));
        assert!(!continuation.begins(BULK, Some(70)));
        assert!(!continuation.begins(BULK, None));
    }

    #[test]
    fn any_other_beginning_is_that_of_another_driver() {
        for (index, position) in [
            (CONTROL_QUEUE, Some(0)),
            (CONTROL_QUEUE, Some(8)),
            (CONTROL_QUEUE, None),
            (BULK, Some(7)),
        ] {
            let mut continuation = negotiated();
            assert!(continuation.begins(index, position), "{index} {position:?}");
            // That was all.
            assert!(!continuation.begins(BULK, Some(0)));
        }
    }

    #[test]
    fn a_driver_that_starts_is_another_one() {
        // Nothing was stopped.
        assert!(!Continuation::default().negotiated(true));
        // Nothing was asked.
        let mut continuation = Continuation::default();
        continuation.stopped(CONTROL_QUEUE, 0);
        assert!(!continuation.negotiated(true));
        // Something else was negotiated, or no session is open.
        continuation.stopped(CONTROL_QUEUE, 7);
        assert!(!continuation.negotiated(false));
        // What was stopped is forgotten then.
        assert!(!continuation.negotiated(true));
    }
}
