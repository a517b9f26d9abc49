// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which nodes there are, and calls that are refused.

use crate::cases::support::gate::Gate;
use crate::cases::support::mirror::{self, Mirror, expect};
use crate::cases::support::prelude::*;
use hmm_uapi::dmirror::{self, Command};
use rustix::io::Errno;

pub(super) const CASES: &[Case] = &[
    Case::new("dmirror/nodes-on-request", nodes_on_request),
    Case::new("dmirror/bad-calls", bad_calls),
    Case::new("dmirror/other-address-space", other_address_space),
];

/// The nodes come with the parameter and go with it, and no device has one of those that upstream's test program
/// takes for coherent memory.
fn nodes_on_request() -> Result<()> {
    ensure!(
        !mirror::path(0).exists(),
        "a node exists that nobody asked for"
    );
    let driver = mirror::driver()?;
    let devices = crate::cases::support::nodes::all().len();
    for number in 0..4 {
        ensure!(
            mirror::path(number).exists() == (number < devices.min(2)),
            "{} with {devices} devices",
            mirror::path(number).display()
        );
    }
    drop(driver);
    ensure!(!mirror::path(0).exists(), "a node outlived its driver");
    Ok(())
}

fn bad_calls() -> Result<()> {
    let _driver = mirror::driver()?;
    let node = Mirror::open(0)?;
    let memory = Memory::single(4)?;
    let start = memory.address() as u64;
    let command = |address, pages| Command {
        address,
        pages,
        buffer: 0,
        ..Command::default()
    };
    let bad_ranges = [
        ("no page", command(start, 0)),
        ("not aligned", command(start + 8, 1)),
        ("wraps", command(0_u64.wrapping_sub(PAGE as u64), 1)),
        (
            "wraps by its length",
            command(start, u64::MAX / PAGE as u64),
        ),
        ("length that a shift loses", command(start, (1 << 52) + 1)),
    ];
    for number in 0..=dmirror::READ_UNLOCKED_NR {
        for (what, bad) in bad_ranges {
            let mut argument = bad;
            expect(what, node.raw(number, &mut argument), Errno::INVAL)?;
            ensure!(argument == bad, "{what}: a refused call wrote {argument:?}");
        }
    }
    let mut argument = command(start, 1);
    expect("no such call", node.raw(10, &mut argument), Errno::NOTTY)?;
    let raw = crate::cases::support::ioctl::RawNode::open(&mirror::path(0))?;
    let size = size_of::<Command>();
    expect(
        "another size",
        raw.call_at(dmirror::IOCTL_TYPE, dmirror::SNAPSHOT_NR, size + 8, 0),
        Errno::NOTTY,
    )?;
    expect(
        "another type",
        raw.call_at(b'h', dmirror::SNAPSHOT_NR, size, 0),
        Errno::NOTTY,
    )?;
    expect(
        "no argument",
        raw.call_at(dmirror::IOCTL_TYPE, dmirror::SNAPSHOT_NR, size, 8),
        Errno::FAULT,
    )?;
    let mut flags = command(0, 6);
    expect(
        "unknown flags",
        node.raw(dmirror::FLAGS_NR, &mut flags),
        Errno::INVAL,
    )?;
    let mut argument = command(start, 1);
    argument.buffer = 8;
    expect(
        "no buffer",
        node.raw(dmirror::SNAPSHOT_NR, &mut argument),
        Errno::FAULT,
    )
}

/// A file mirrors the address space that opened it, also if another process makes the call, and nothing once that has
/// ended.
fn other_address_space() -> Result<()> {
    let _driver = mirror::driver()?;
    let mut memory = Memory::single(2)?;
    memory.touch(0..1);
    let (opened, taken) = (Gate::new()?, Gate::new()?);
    let child = fork(|| {
        let _node = Mirror::open(0)?;
        memory.protect(0..1, rustix::mm::MprotectFlags::empty())?;
        memory.fill_pages(1..2, 1);
        opened.open()?;
        taken.wait()
    })?;
    opened.wait()?;
    let node = Mirror::of_child(&child, 0)?;
    let bytes = node.snapshot(memory.range())?;
    ensure!(
        bytes == [dmirror::PROT_ERROR, dmirror::PROT_WRITE],
        "the child's memory: {bytes:x?}"
    );
    let bytes = Mirror::open(0)?.snapshot(memory.range())?;
    ensure!(
        bytes == [dmirror::PROT_ZERO | dmirror::PROT_READ, dmirror::PROT_NONE],
        "the parent's memory: {bytes:x?}"
    );
    taken.open()?;
    child.wait()?;
    let ended = "an address space that has ended";
    expect(ended, node.snapshot(memory.range()), Errno::INVAL)?;
    expect(ended, node.to_system(memory.range()), Errno::INVAL)
}
