// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `fuzz/*`: every ioctl with boundary and random values, by several threads and processes, while mappings come and go.
//!
//! Beside a clean log this expects that each errno is one that `docs/uapi.md` lists, that each reply accounts for its
//! range, and that no byte of the memory changes.

mod call;
mod reply;
mod site;
mod values;

use super::support::depth;
use super::support::prelude::*;
use super::support::random::some_seed;

pub(super) const CASES: &[Case] = &[Case::new("fuzz/ioctls", ioctls).rounds()];

/// Calls of each thread unless more are asked for.
const ROUNDS: u32 = 200;

fn ioctls() -> Result<()> {
    let load = depth::load()?;
    let seed = match load.fuzz_seed {
        Some(seed) => seed,
        None => some_seed()?,
    };
    eprintln!("HMM_FUZZ_SEED={seed} repeats the choices of each thread");
    site::run(
        seed,
        load.fuzz_rounds
            .unwrap_or_else(|| load.depth.rounds(ROUNDS)),
    )
    .with_context(|| format!("seed {seed}"))
}
