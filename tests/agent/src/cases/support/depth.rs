// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How many rounds a case does. The bound is a number of rounds and not a time: a slow machine then does the same as a
//! fast one, and what a run covers does not depend on what else the machine does.

use super::kernel;
use anyhow::{Context, Result};
use hmm_control::Load;

/// What the host says about rounds, times and seeds.
pub(in crate::cases) fn load() -> Result<Load> {
    match std::env::var(Load::VARIABLE) {
        Ok(text) => serde_json::from_str(&text)
            .with_context(|| format!("{} makes no sense: {text}", Load::VARIABLE)),
        Err(_) => Ok(Load::default()),
    }
}

/// The number of rounds at the depth of this run, where `short` are done for every change. A debug kernel, which takes
/// longer for each, does fewer.
pub(in crate::cases) fn rounds(short: u32) -> Result<u32> {
    Ok(load()?.depth.rounds(short.div_ceil(kernel::patience())))
}
