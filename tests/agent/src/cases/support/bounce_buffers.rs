// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The kernel's bounce buffers for DMA (swiotlb).

use anyhow::{Context, Result};

const USED: &str = "/sys/kernel/debug/swiotlb/io_tlb_used";

/// A page needs so many: each is of 2 KiB.
pub(in crate::cases) const PER_PAGE: u64 = 2;

/// How many are in use.
pub(in crate::cases) fn used() -> Result<u64> {
    let text = std::fs::read_to_string(USED).with_context(|| format!("cannot read {USED}"))?;
    (text.trim().parse()).with_context(|| format!("{USED} says {text:?}"))
}
