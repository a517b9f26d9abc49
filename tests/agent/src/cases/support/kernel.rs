// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the guest's kernel is.

use anyhow::{Context, Result};
use std::fs;
use std::path::Path;

/// The list of leaks that only a kernel has which is built to find bugs.
pub(in crate::cases) const LEAKS: &str = "/sys/kernel/debug/kmemleak";
/// How much longer everything may take on such a kernel. Its checks cost most in what is emulated.
const DEBUG_FACTOR: u32 = 5;
const TAINTED: &str = "/proc/sys/kernel/tainted";
/// A bad page, and an oops or BUG. Warnings are left to the host, which reads the log and knows the exceptions.
const SPLATS: u64 = 1 << 5 | 1 << 7;

/// Whether the kernel is built to find bugs.
pub(in crate::cases) fn is_debug() -> bool {
    Path::new(LEAKS).exists()
}

/// By how much limits on time are to be longer than on a kernel for everyday use.
pub(in crate::cases) fn patience() -> u32 {
    if is_debug() { DEBUG_FACTOR } else { 1 }
}

/// Whether the kernel has found itself broken since it was booted.
pub(in crate::cases) fn has_complained() -> Result<bool> {
    let text = fs::read_to_string(TAINTED).with_context(|| format!("cannot read {TAINTED}"))?;
    let flags: u64 = text.trim().parse().context("the taint is no number")?;
    Ok(flags & SPLATS != 0)
}
