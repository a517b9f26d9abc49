// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `policy/*`: what a process says about where its memory had better be, and what comes of it.

mod advise;
mod evict;
mod keep;
mod limit;
mod numa;
mod prefetch;

use super::support::ioctl::RawNode;
use super::support::nodes;
use super::support::prelude::*;
use hmm_uapi::IOCTL_TYPE;
use hmm_uapi::client::PrefetchRequest;
use rustix::io::Errno;
use std::ops::Range;
use zerocopy::{Immutable, IntoBytes};

/// All cases of the group.
pub(super) fn cases() -> impl Iterator<Item = &'static Case> {
    (advise::CASES.iter())
        .chain(prefetch::CASES)
        .chain(evict::CASES)
        .chain(limit::CASES)
        .chain(keep::CASES)
        .chain(numa::CASES)
}

const PAGES: usize = 1024;
const BYTES: u64 = (PAGES * PAGE) as u64;

fn filled(seed: u64) -> Result<Memory> {
    let mut memory = Memory::single(PAGES)?;
    memory.fill(seed);
    Ok(memory)
}

fn request(range: Range<u64>, direction: Option<Direction>) -> PrefetchRequest {
    PrefetchRequest {
        process: Process::Caller,
        range,
        direction,
        flags: MigrateFlags::default(),
    }
}

/// Makes a call with a structure as it is.
fn call<T: IntoBytes + Immutable>(number: u8, argument: &T) -> Result<(), Errno> {
    let node = RawNode::open(&nodes::first()).map_err(|_| Errno::NODEV)?;
    let mut bytes = argument.as_bytes().to_vec();
    node.call(IOCTL_TYPE, number, &mut bytes)
}

fn expect_errno_none(what: &str, result: Result<(), Errno>) -> Result<()> {
    ensure!(result == Ok(()), "{what}: {result:?}");
    Ok(())
}
