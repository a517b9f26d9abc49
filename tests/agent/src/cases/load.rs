// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `load/*`: everything at once, for as long as one likes, and every byte compared with what it should be.
//!
//! Several processes do anything at random with memory of their own ([`worker`], [`action`], [`job`]): more than the small device
//! holds, some within a memory cgroup that makes the kernel swap, some to be killed in the middle. One more moves their
//! memory from outside ([`outsider`]). Meanwhile the kernel looks for equal pages and for huge ones. What all of them
//! know of each other is on a [`board`]; [`site`] starts them and looks after them.

mod action;
mod area;
mod board;
mod history;
mod job;
mod operation;
mod outcome;
mod outsider;
mod site;
mod worker;

use super::support::prelude::*;
use super::support::random::some_seed;
use super::support::{depth, nodes};
use site::Site;
use std::time::Duration;

pub(super) const CASES: &[Case] = &[Case::new("load/mixed", mixed).load()];

/// How long it goes on unless it is asked to.
const SHORT: Duration = Duration::from_secs(15);

fn mixed() -> Result<()> {
    let load = depth::load()?;
    let time = match load.minutes {
        Some(_) => load.duration(),
        None => SHORT * load.depth.patience(),
    };
    let seed = match load.seed {
        Some(seed) => seed,
        None => some_seed()?,
    };
    // Without a small device nothing is crowded.
    nodes::second()?;
    run(seed, time)?.expect_load(load.minutes.is_some())
}

/// The load on all devices there are, for so long.
pub(super) fn run(seed: u64, time: Duration) -> Result<outcome::Outcome> {
    Site::new(seed)?.run(time)
}
