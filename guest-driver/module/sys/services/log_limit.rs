// SPDX-License-Identifier: GPL-2.0-only

//! A limit on the log lines that a device can cause, so that it cannot flood the log.
//!
//! Code that reacts to a device logs with [`warn_limited!`] and [`error_limited!`], never with
//! `dev_warn!` and `dev_err!`. Errors have a limit of their own: the line that says why a device was
//! given up must not be lost among warnings that the same device caused. What is logged once a probe
//! needs no limit: a device cannot cause probes.
//!
//! C header: [`include/linux/ratelimit.h`](srctree/include/linux/ratelimit.h)

use crate::sys::bindings;
use kernel::prelude::*;

/// Whether a warning that a device causes may be logged now; for [`warn_limited!`]. The kernel sets
/// the limit to 10 lines in 5 seconds and logs how many lines were suppressed. Any context.
pub(crate) fn may_warn() -> bool {
    // SAFETY: Has no requirements.
    unsafe { bindings::vhmm_may_warn() }
}

/// As [`may_warn`], for [`error_limited!`].
pub(crate) fn may_log_error() -> bool {
    // SAFETY: Has no requirements.
    unsafe { bindings::vhmm_may_log_error() }
}

/// `dev_warn!` within the limit.
///
/// # Examples
///
/// ```ignore
/// warn_limited!(link.device(), "a queue is broken\n");
/// ```
macro_rules! warn_limited {
    ($($arg:tt)*) => {
        if $crate::sys::services::log_limit::may_warn() {
            ::kernel::prelude::dev_warn!($($arg)*);
        }
    };
}

/// `dev_err!` within the limit.
macro_rules! error_limited {
    ($($arg:tt)*) => {
        if $crate::sys::services::log_limit::may_log_error() {
            ::kernel::prelude::dev_err!($($arg)*);
        }
    };
}

pub(crate) use {
    error_limited,
    warn_limited, //
};

#[kunit_tests(virtio_hmm_log_limit)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_limited() {
        // Even if a second interval begins meanwhile.
        assert!((0..1000).filter(|_| may_warn()).count() <= 20);
        assert!((0..1000).filter(|_| may_log_error()).count() <= 20);
    }
}
