// SPDX-License-Identifier: GPL-2.0-only

//! Why a device is started anew.

/// Why a device is started anew.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// It does not answer, or not sensibly.
    NoAnswer,
    /// A queue does not accept requests.
    BrokenQueue,
    /// It answers, and does not have the driver's session.
    NoSession,
}

impl Why {
    /// For the log.
    pub(super) fn sentence(self) -> &'static str {
        match self {
            Self::NoAnswer => "the device does not answer",
            Self::BrokenQueue => "a queue is broken",
            Self::NoSession => "the device has lost the session",
        }
    }

    /// For the trace event of a device that is given up.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::NoAnswer => "no_answer",
            Self::BrokenQueue => "broken_queue",
            Self::NoSession => "no_session",
        }
    }
}
