// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `fuzz/*`: every ioctl with boundary and random values, by several threads and processes, while mappings come and go.
//!
//! Beside a clean log this expects that each errno is one that `docs/uapi.md` lists, that each reply accounts for its
//! range, and that no byte of the memory changes.

mod call;
mod reply;
mod site;
mod values;

use super::support::prelude::*;
use hmm_control::Load;
use std::fs::File;
use std::io::Read;

pub(super) const CASES: &[Case] = &[Case::new("fuzz/ioctls", ioctls).rounds()];

/// Calls of each thread unless more are asked for.
const ROUNDS: u32 = 200;

fn ioctls() -> Result<()> {
    let load = match std::env::var(Load::VARIABLE) {
        Ok(text) => serde_json::from_str(&text)
            .with_context(|| format!("{} makes no sense: {text}", Load::VARIABLE))?,
        Err(_) => Load::default(),
    };
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

/// A seed that is easy to type.
fn some_seed() -> Result<u64> {
    let mut bytes = [0; 4];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context("no random numbers")?;
    Ok(u32::from_ne_bytes(bytes).into())
}
