// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The memory policy of a process says where its pages go, whichever task migrates them back to system memory.

use super::super::case::skip;
use super::super::support::gate::Gate;
use super::super::support::prelude::*;
use super::{BYTES, PAGES, filled};
use std::ptr::null;

pub(super) const CASES: &[Case] = &[
    Case::new("policy/numa-own-call-anon-4k", own_call),
    Case::new("policy/numa-others-call-anon-4k", others_call),
    Case::new("policy/numa-evicted-anon-4k", evicted),
    Case::new("policy/numa-read-anon-4k", read),
];

/// The node that the process is bound to. Pages that come from elsewhere are on the first.
const NODE: i32 = 1;

/// Skips the case where there is only one node.
fn need_two_nodes() -> Result<()> {
    let nodes = std::fs::read_to_string("/sys/devices/system/node/has_memory")
        .context("cannot read which nodes have memory")?;
    match nodes.trim().starts_with("0-") {
        true => Ok(()),
        false => Err(skip(format!("nodes with memory: {}", nodes.trim()))),
    }
}

/// Binds the calling process to [`NODE`].
fn bind() -> Result<()> {
    let mask = 1_u64 << NODE;
    // SAFETY: The kernel reads one word of the mask.
    let result = unsafe {
        libc::syscall(
            libc::SYS_set_mempolicy,
            libc::MPOL_BIND,
            &raw const mask,
            64,
        )
    };
    ensure!(
        result == 0,
        "set_mempolicy: {}",
        std::io::Error::last_os_error()
    );
    Ok(())
}

/// Checks that every page is on [`NODE`].
fn expect_bound(memory: &Memory) -> Result<()> {
    let pages: Vec<u64> = (0..PAGES)
        .map(|page| memory.range().start + (page * PAGE) as u64)
        .collect();
    let mut nodes = vec![-1_i32; PAGES];
    // SAFETY: Without target nodes the kernel only writes the node of each page to the array, which is as long as
    // the list of pages.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_pages,
            0,
            PAGES,
            pages.as_ptr(),
            null::<i32>(),
            nodes.as_mut_ptr(),
            0,
        )
    };
    ensure!(
        result == 0,
        "move_pages: {}",
        std::io::Error::last_os_error()
    );
    let elsewhere = nodes.iter().filter(|&&node| node != NODE).count();
    ensure!(
        elsewhere == 0,
        "{elsewhere} of {PAGES} pages are not on node {NODE}: {:?}",
        &nodes[..8]
    );
    Ok(())
}

/// A child that is bound, has its pages on the device, and checks them once `back` is open.
fn bound_child(there: &Gate, back: &Gate) -> Result<Child> {
    fork(|| {
        bind()?;
        let memory = filled(1)?;
        Mover::open()?.all_to_device(memory.range())?;
        there.open()?;
        back.wait()?;
        Mover::open()?.expect_in_system(memory.range())?;
        expect_bound(&memory)?;
        memory.check(1)
    })
}

fn own_call() -> Result<()> {
    need_two_nodes()?;
    fork(|| {
        bind()?;
        let mover = Mover::open()?;
        let memory = filled(2)?;
        mover.all_to_device(memory.range())?;
        mover.to_system(memory.range())?;
        expect_bound(&memory)?;
        memory.check(2)
    })?
    .wait()
}

fn read() -> Result<()> {
    need_two_nodes()?;
    fork(|| {
        bind()?;
        let memory = filled(3)?;
        Mover::open()?.all_to_device(memory.range())?;
        memory.check(3)?;
        expect_bound(&memory)
    })?
    .wait()
}

fn others_call() -> Result<()> {
    need_two_nodes()?;
    let (there, back) = (Gate::new()?, Gate::new()?);
    let child = bound_child(&there, &back)?;
    there.wait()?;
    let mover = Mover::open()?.of(child.process()?);
    mover.to_system(0..1 << 47)?;
    back.open()?;
    child.wait()
}

fn evicted() -> Result<()> {
    need_two_nodes()?;
    let (there, back) = (Gate::new()?, Gate::new()?);
    let child = bound_child(&there, &back)?;
    there.wait()?;
    let mover = Mover::open()?;
    let report = mover.device.evict_bytes(BYTES)?;
    ensure!(report.bytes_evicted == BYTES, "{report:?}");
    back.open()?;
    child.wait()
}
