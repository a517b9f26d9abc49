// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `control/*`: what is known to be wrong, so that the host can check that the kernel reports it. They run only when they
//! are asked for by their whole name, in guests of their own, which may not live long.

use super::leaks;
use super::support::ioctl::RawNode;
use super::support::kernel;
use super::support::prelude::*;
use super::support::storm::Storm;
use rustix::io::Errno;
use std::fs::File;
use std::path::Path;

pub(super) const CASES: &[Case] = &[
    Case::new("control/exit-against-evict", exit_against_evict).within(300),
    Case::new("control/leaks", leaks_are_found).within(300),
];

/// Where the host has put the module that the case needs.
const MODULE: &str = "/hmm/control.ko";
/// A node of the kernel's own test driver, and its call.
const NODE: &str = "/dev/hmm_dmirror0";
const TYPE: u8 = b'H';
const TO_DEVICE: u8 = 2;
/// The storm meets the use after free long before; it ends then.
const ROUNDS: u32 = 600;

fn insert() -> Result<()> {
    let file = File::open(MODULE).with_context(|| format!("cannot open {MODULE}"))?;
    rustix::system::finit_module(file, c"", 0).context("cannot load the module")
}

/// The arguments of a call of the kernel's test driver: address, buffer, pages, and two numbers that it writes.
fn arguments(memory: &Memory, buffer: &Memory) -> Vec<u8> {
    [
        memory.address() as u64,
        buffer.address() as u64,
        memory.pages() as u64,
        0,
        0,
    ]
    .iter()
    .flat_map(|word| word.to_ne_bytes())
    .collect()
}

fn exit_against_evict() -> Result<()> {
    insert()?;
    let storm = Storm {
        memory: || Memory::single(64),
        to_device: &|memory| {
            let node = RawNode::open(Path::new(NODE))?;
            let buffer = Memory::single(memory.pages())?;
            match node.call(TYPE, TO_DEVICE, &mut arguments(memory, &buffer)) {
                // Pages that were evicted before it could read them back.
                Ok(()) | Err(Errno::NOENT | Errno::NOMEM) => Ok(()),
                Err(errno) => bail!("test_hmm: {errno:?}"),
            }
        },
        // The process that closes the node evicts the pages of all processes.
        begin_jobs: &|_| Ok(None),
        evict: &|| RawNode::open(Path::new(NODE)).map(drop),
        is_over: &kernel::has_complained,
    };
    let killed = storm.rage(ROUNDS)?;
    eprintln!("{killed} processes were killed");
    Ok(())
}

fn leaks_are_found() -> Result<()> {
    insert()?;
    leaks::scan()
}
