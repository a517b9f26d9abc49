// SPDX-License-Identifier: GPL-2.0-only

//! The CPUs of the system.
//!
//! C header: [`include/linux/cpumask.h`](srctree/include/linux/cpumask.h)

use crate::sys::bindings;

/// How many CPUs are online, at the moment of asking; at least 1.
pub(crate) fn online_cpus() -> usize {
    // SAFETY: Has no requirements. CAST: The number is small.
    unsafe { bindings::vhmm_online_cpus() }.max(1) as usize
}
