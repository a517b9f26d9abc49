// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Programs: RV64 code in the memory of the process.

use crate::cases::support::jobs::Jobs;
use crate::cases::support::nodes;
use crate::cases::support::prelude::*;
use hmm_control::plan;
use hmm_uapi::JobStatus;
use hmm_uapi::client::{JobReport, JobRequest, ProgramRequest};
use std::process::Command;
use std::time::Duration;

pub(super) const CASES: &[Case] = &[
    Case::new("job/program-btree", btree).within(300),
    Case::new("job/program-hash-join", join).within(300),
    Case::new("job/program-breadth-first-search", breadth_first).within(300),
    Case::new("job/program-harts-count-together", harts),
    Case::new("job/program-illegal-instruction", illegal),
    Case::new("job/program-without-an-end", without_end),
    Case::new("job/program-that-leaves-its-memory", wild),
];

/// Runs the C program, which compares every answer of the device with the CPU's. Returns what it prints.
fn structure(name: &str, size: u32, mode: &str) -> Result<serde_json::Value> {
    let output = Command::new(plan::DEVICE_PROGRAM)
        .arg(nodes::first())
        .args([name, &size.to_string(), mode])
        .output()
        .context("cannot start the program")?;
    ensure!(
        output.status.success(),
        "{}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).context("the program printed no figures")
}

fn compare(name: &str, size: u32) -> Result<()> {
    drop(Jobs::of_programs()?);
    let number = |figures: &serde_json::Value, field: &str| {
        figures[field]
            .as_u64()
            .with_context(|| format!("no {field} in {figures}"))
    };
    let stay = structure(name, size, "stay")?;
    let moved = structure(name, size, "move")?;
    ensure!(
        number(&stay, "answer")? == number(&moved, "answer")?,
        "{stay} and {moved}"
    );
    let pages = number(&stay, "heap_bytes")? / PAGE as u64;
    let blocks = number(&stay, "heap_bytes")? / HUGE as u64 + 2;
    // The code, the stacks of the harts and the calls' arguments beside the heap. In place a page faults once at most. Each of
    // three calls may fault again where the CPU took something back that had moved.
    let (in_place, moving) = (
        number(&stay, "device_faults")?,
        number(&moved, "device_faults")?,
    );
    eprintln!("{pages} pages: {in_place} faults in place, {moving} moving");
    ensure!(
        in_place > 0 && in_place <= pages + 64,
        "{in_place} faults in place for {pages} pages"
    );
    ensure!(
        moving > 0 && moving < in_place && moving <= 3 * (4 * blocks + 64),
        "{moving} faults for {blocks} blocks"
    );
    ensure!(
        number(&stay, "bytes_to_device")? == 0 && number(&moved, "bytes_to_device")? > 0,
        "{stay} and {moved}"
    );
    Ok(())
}

fn btree() -> Result<()> {
    compare("btree", 40_000)
}

fn join() -> Result<()> {
    compare("join", 10_000)
}

fn breadth_first() -> Result<()> {
    compare("bfs", 10_000)
}

/// A function of a few instructions, and a stack for each of so many harts.
struct Code {
    memory: Memory,
    entry: u64,
}

const STACK: u64 = 4096;

impl Code {
    fn new(words: &[u32]) -> Result<Self> {
        let mut memory = Memory::single(16)?;
        let bytes = words.iter().flat_map(|word| word.to_le_bytes());
        for (place, byte) in memory.bytes_mut().iter_mut().zip(bytes) {
            *place = byte;
        }
        let entry = memory.address() as u64;
        Ok(Self { memory, entry })
    }

    fn call(&self, harts: u64, arguments: [u64; 5]) -> ProgramRequest {
        ProgramRequest {
            entry: self.entry,
            stack_top: self.memory.range().end,
            stack_bytes: STACK,
            harts,
            arguments,
            ..ProgramRequest::default()
        }
    }
}

const RET: u32 = 0x0000_8067;

/// `li t0, 100; 1: li t1, 1; amoadd.d zero, t1, (a0); addi t0, t0, -1; bnez t0, 1b; ret`, on eight harts.
fn harts() -> Result<()> {
    let jobs = Jobs::of_programs()?;
    let code = Code::new(&[
        0x0640_0293,
        0x0010_0313,
        0x0065_302f,
        0xfff2_8293,
        0xfe02_9ae3,
        RET,
    ])?;
    let memory = Memory::single(1)?;
    let address = memory.address() as u64;
    for is_on_device in [false, true] {
        if is_on_device {
            Mover::open()?.all_to_device(memory.range())?;
        }
        memory.word(0).store(5, std::sync::atomic::Ordering::SeqCst);
        jobs.done(&JobRequest::program(&code.call(8, [address, 0, 0, 0, 0])))?;
        let found = memory.word(0).load(std::sync::atomic::Ordering::SeqCst);
        ensure!(found == 805, "8 harts counted from 5 to {found}");
    }
    Ok(())
}

fn expect_at(report: &JobReport, address: u64) -> Result<()> {
    ensure!(
        report.program_counter == address,
        "expected the end at {address:#x}: {report:x?}"
    );
    Ok(())
}

fn illegal() -> Result<()> {
    let jobs = Jobs::of_programs()?;
    // nop; an instruction of zeroes; ebreak
    for (words, status) in [
        ([0x13, 0], JobStatus::IllegalInstruction),
        ([0x13, 0x0010_0073], JobStatus::Breakpoint),
    ] {
        let code = Code::new(&words)?;
        let report = jobs.run(&JobRequest::program(&code.call(1, [0; 5])))?;
        ensure!(report.status == Some(status), "{report:x?}");
        expect_at(&report, code.entry + 4)?;
    }
    Ok(())
}

/// A loop without an end reaches the limit that the call sets, of instructions or of time.
fn without_end() -> Result<()> {
    let jobs = Jobs::of_programs()?;
    // j .
    let code = Code::new(&[0x6f])?;
    for (instructions, milliseconds) in [(10_000, 0), (0, 50)] {
        let call = ProgramRequest {
            instructions,
            milliseconds,
            ..code.call(1, [0; 5])
        };
        let report = jobs.run(&JobRequest::program(&call))?;
        ensure!(report.status == Some(JobStatus::Limit), "{report:x?}");
        expect_at(&report, code.entry)?;
        ensure!(
            instructions == 0 || report.amount == instructions,
            "{report:?}"
        );
        ensure!(
            milliseconds == 0 || report.device_time >= Duration::from_millis(50),
            "{report:?}"
        );
    }
    Ok(())
}

/// A store to an address without memory, and a jump to one.
fn wild() -> Result<()> {
    let jobs = Jobs::of_programs()?;
    // nop; sd a0, 0(a1); ret
    let code = Code::new(&[0x13, 0x00a5_b023, RET])?;
    let wild = 1 << 50;
    let call = code.call(1, [7, wild, 0, 0, 0]);
    let report = jobs.fails(
        "a store",
        &JobRequest::program(&call),
        JobStatus::Unmapped,
        wild,
    )?;
    expect_at(&report, code.entry + 4)?;
    // jr a0
    let code = Code::new(&[0x0005_0067])?;
    let call = code.call(1, [wild, 0, 0, 0, 0]);
    let report = jobs.fails(
        "a jump",
        &JobRequest::program(&call),
        JobStatus::Unmapped,
        wild,
    )?;
    expect_at(&report, wild)?;
    // The code itself is not there any more.
    let code = Code::new(&[RET])?;
    let call = JobRequest::program(&code.call(1, [0; 5]));
    jobs.done(&call)?;
    code.memory.unmap(0..1)?;
    jobs.fails("a call of nothing", &call, JobStatus::Unmapped, code.entry)?;
    Ok(())
}
