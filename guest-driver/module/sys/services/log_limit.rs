// SPDX-License-Identifier: GPL-2.0-only

//! A limit on the log lines that a device can cause, so that it cannot flood the log.
//!
//! C header: [`include/linux/ratelimit.h`](srctree/include/linux/ratelimit.h)

use crate::sys::bindings;
use kernel::prelude::*;

/// Whether a line that a device causes may be logged now. The driver has one limit, which the kernel
/// sets to 10 lines in 5 seconds; it logs how many lines were suppressed. Any context.
///
/// # Examples
///
/// ```ignore
/// if may_log() {
///     dev_warn!(link.device(), "a queue is broken\n");
/// }
/// ```
pub(crate) fn may_log() -> bool {
    // SAFETY: Has no requirements.
    unsafe { bindings::vhmm_may_log() }
}

#[kunit_tests(virtio_hmm_log_limit)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_limited() {
        // Even if a second interval begins meanwhile.
        assert!((0..1000).filter(|_| may_log()).count() <= 20);
    }
}
