// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Another process uses memory that is on the device.

use crate::cases::support::gate::Gate;
use crate::cases::support::prelude::*;
use crate::cases::support::ptrace;
use std::os::unix::fs::FileExt;

pub(super) const CASES: &[Case] = &[
    Case::new("fault/process-vm-anon-4k", other_process_by_vm_calls),
    Case::new("fault/ptrace-anon-4k", other_process_by_ptrace),
    Case::new("fault/proc-mem-anon-4k", other_process_by_proc),
];

/// A child with memory that is on the device, waiting until the gate opens; then it checks its memory.
fn holder(
    memory: &mut Memory,
    seed: u64,
    expected: impl FnOnce(&Memory) -> Result<()>,
) -> Result<(Child, Gate)> {
    let (ready, go) = (Gate::new()?, Gate::new()?);
    let range = memory.range();
    let child = fork(|| {
        memory.fill(seed);
        ready.open()?;
        go.wait()?;
        expected(memory)
    })?;
    ready.wait()?;
    Mover::open()?.of(child.process()?).all_to_device(range)?;
    Ok((child, go))
}

fn other_process_by_vm_calls() -> Result<()> {
    let mut memory = Memory::single(40)?;
    let mut expected = Memory::single(40)?;
    expected.fill(3);
    let range = memory.range();
    let (child, go) = holder(&mut memory, 3, |memory| {
        memory.check_pages(0..10, 3)?;
        memory.check_pages(10..20, 4)?;
        memory.check_pages(20..40, 3)
    })?;
    let mut copy = vec![0; 40 * PAGE];
    ptrace::read(child.id()?, range.start, &mut copy)?;
    ensure!(
        copy == expected.bytes(),
        "process_vm_readv() gave other bytes"
    );
    let mover = Mover::open()?.of(child.process()?);
    mover.expect_in_system(range.clone())?;
    mover.all_to_device(range.clone())?;
    expected.fill_pages(10..20, 4);
    ptrace::write(
        child.id()?,
        range.start + 10 * PAGE as u64,
        expected.page_bytes(10..20),
    )?;
    go.open()?;
    child.wait()
}

fn other_process_by_ptrace() -> Result<()> {
    let mut memory = Memory::single(4)?;
    let mut expected = Memory::single(4)?;
    expected.fill(3);
    let range = memory.range();
    let (child, go) = holder(&mut memory, 3, |memory| {
        memory.check_pages(0..2, 3)?;
        ensure!(
            memory.bytes()[2 * PAGE..2 * PAGE + 8] == [7; 8],
            "POKEDATA was lost"
        );
        memory.check_pages(3..4, 3)
    })?;
    let tracer = ptrace::Tracer::attach(child.id()?)?;
    let word = tracer.peek(range.start + 24)?;
    ensure!(
        word.to_ne_bytes() == expected.bytes()[24..32],
        "PEEKDATA gave {word:#x}"
    );
    tracer.poke(range.start + 2 * PAGE as u64, u64::from_ne_bytes([7; 8]))?;
    tracer.detach()?;
    go.open()?;
    child.wait()
}

fn other_process_by_proc() -> Result<()> {
    let mut memory = Memory::single(20)?;
    let mut expected = Memory::single(20)?;
    expected.fill(3);
    let range = memory.range();
    let (child, go) = holder(&mut memory, 3, |memory| memory.check(3))?;
    let file = std::fs::File::open(format!("/proc/{}/mem", child.id()?))?;
    let mut copy = vec![0; 20 * PAGE];
    file.read_exact_at(&mut copy, range.start)?;
    ensure!(copy == expected.bytes(), "/proc/PID/mem gave other bytes");
    go.open()?;
    child.wait()
}
