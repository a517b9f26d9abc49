// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Programs that cannot go on end with an error that names the address and the program counter.

use std::time::{Duration, Instant};

use hmm_front_end::end_status;
use hmm_protocol::{ControlKind, JobFlags, JobKind, Report, Status};

use super::{CODE, Call, WORDS, map_all, word, write_code};
use crate::{
    CONTEXT,
    assembler::{self as asm, x},
    start,
};

/// Longer than anything takes on a busy machine; only a hang comes so far.
const HANG: Duration = Duration::from_secs(60);
/// An address at which nothing is mapped.
const NOTHING: u64 = 0x6000_0000_0000;

fn end_of(code: &[u32], call: Call) -> Report {
    let (_process, mut front_end) = start(&[]);
    write_code(&front_end, code);
    map_all(&mut front_end);
    front_end.run_job(JobKind::Program, call.flags, CONTEXT, &call.arguments())
}

fn is(report: &Report, status: Status, address: u64, program_counter: u64) {
    assert_eq!(end_status(report), status, "{report:?}");
    assert_eq!(report.address.get(), address, "{report:?}");
    assert_eq!(report.program_counter.get(), program_counter, "{report:?}");
}

#[test]
fn instructions_that_end_a_program() {
    let nop = asm::addi(0, 0, 0);
    let cases = [
        (0xffff_ffff, Status::IllegalInstruction, CODE + 4),
        (0x0000_0000, Status::IllegalInstruction, CODE + 4),
        (0x0000_100f, Status::IllegalInstruction, CODE + 4),
        (asm::EBREAK, Status::Breakpoint, CODE + 4),
        (asm::ECALL, Status::Breakpoint, CODE + 4),
        (
            asm::r(asm::AMO, 3, 0, 0, x::A0, x::A0),
            Status::Misaligned,
            WORDS + 4,
        ),
    ];
    for (word, status, address) in cases {
        let call = Call {
            arguments: [WORDS + 4, 0, 0, 0, 0, 0],
            ..Call::default()
        };
        let report = end_of(&[nop, word], call);
        is(&report, status, address, CODE + 4);
        assert_eq!(report.amount.get(), 1, "instructions before it");
    }
}

#[test]
fn accesses_that_end_a_program() {
    let jump = asm::i(0x67, 0, 0, x::A0, 0);
    let load = asm::i(asm::LOAD, 3, x::A1, x::A0, 0);
    let store = asm::s(3, x::A0, x::A0, 0);
    let amo = asm::r(asm::AMO, 3, 0, 0, x::A0, x::A0);
    let nop = asm::addi(0, 0, 0);
    let high = u64::MAX - 3;
    let cases = [
        (jump, NOTHING, Status::Unmapped, NOTHING, NOTHING),
        (load, NOTHING + 1, Status::Unmapped, NOTHING + 1, CODE + 4),
        (store, 0, Status::Unmapped, 0, CODE + 4),
        (store, CODE + 8, Status::Forbidden, CODE + 8, CODE + 4),
        // The code permits reading, the stack no atomic accesses.
        (amo, CODE + 8, Status::Forbidden, CODE + 8, CODE + 4),
        (
            amo,
            super::STACKS - 8,
            Status::Forbidden,
            super::STACKS - 8,
            CODE + 4,
        ),
        // From a page that is mapped to one that is not.
        (store, WORDS - 4, Status::Unmapped, WORDS - 4, CODE + 4),
        (
            load,
            WORDS + 0x10_000 - 4,
            Status::Unmapped,
            WORDS + 0x10_000,
            CODE + 4,
        ),
        (
            store,
            WORDS + 0x10_000 - 3,
            Status::Unmapped,
            WORDS + 0x10_000,
            CODE + 4,
        ),
        // Beyond the addresses of a context, and around the end of all addresses.
        (load, 1 << 57, Status::Unmapped, 1 << 57, CODE + 4),
        (load, high, Status::Unmapped, high, CODE + 4),
        (jump, u64::MAX, Status::Unmapped, u64::MAX - 1, u64::MAX - 1),
    ];
    for (word, a0, status, address, program_counter) in cases {
        let call = Call {
            flags: JobFlags::NO_FAULT,
            arguments: [a0, 0, 0, 0, 0, 0],
            ..Call::default()
        };
        let report = end_of(&[nop, word], call);
        is(&report, status, address, program_counter);
    }
}

#[test]
fn an_endless_loop_ends_at_its_limit_of_instructions() {
    let code = [asm::addi(x::A0, x::A0, 1), asm::j(0, -4)];
    for instructions in [1, 2, 1001, 100_000] {
        let call = Call {
            instructions,
            ..Call::default()
        };
        let report = end_of(&code, call);
        is(&report, Status::Limit, 0, CODE + 4 * (instructions % 2));
        assert_eq!(report.amount.get(), instructions);
        assert_eq!(report.value.get(), instructions.div_ceil(2));
    }
    // Exactly enough.
    let call = Call {
        instructions: 2,
        ..Call::default()
    };
    let report = end_of(&[asm::addi(x::A0, 0, 5), asm::ret()], call);
    assert_eq!(end_status(&report), Status::Ok);
    assert_eq!(report.value.get(), 5);
}

#[test]
fn an_endless_loop_ends_at_its_limit_of_time() {
    let started = Instant::now();
    let call = Call {
        milliseconds: 50,
        harts: 3,
        ..Call::default()
    };
    let report = end_of(&[asm::j(0, 0)], call);
    is(&report, Status::Limit, 0, CODE);
    assert!(report.device_ns.get() >= 50_000_000, "{report:?}");
    assert!(started.elapsed() < HANG);
}

#[test]
fn the_bad_end_of_a_hart_ends_the_others() {
    // Hart 3 comes to a breakpoint, the others to none.
    let code = [
        asm::addi(x::T0, 0, 3),
        asm::b(0, x::A5, x::T0, 8),
        asm::j(0, 0),
        asm::EBREAK,
    ];
    let call = Call {
        harts: 8,
        ..Call::default()
    };
    is(
        &end_of(&code, call),
        Status::Breakpoint,
        CODE + 12,
        CODE + 12,
    );
}

#[test]
fn programs_are_cancelled() {
    let (_process, mut front_end) = start(&[]);
    let code = [
        asm::i(asm::LOAD, 3, x::T0, x::A0, 0),
        asm::addi(x::T0, x::T0, 1),
        asm::s(3, x::A0, x::T0, 0),
        asm::j(0, -12),
    ];
    write_code(&front_end, &code);
    map_all(&mut front_end);
    let call = Call {
        harts: 4,
        arguments: [WORDS, 0, 0, 0, 0, 0],
        ..Call::default()
    };
    let job = call.job(&front_end);
    assert_eq!(front_end.submit_job(&job).status(), Status::Ok);
    let started = Instant::now();
    while word(&front_end, WORDS) < 1000 {
        assert!(started.elapsed() < HANG, "the program does not work");
    }
    let status = front_end.ask(ControlKind::JobCancel, job.cookie.get(), 0);
    assert_eq!(status, Status::Ok);
    front_end.post_report_buffers(1);
    assert_eq!(end_status(&front_end.report()), Status::Cancelled);
    // A context ends with all harts in it, and nothing writes afterwards.
    let job = call.job(&front_end);
    assert_eq!(front_end.submit_job(&job).status(), Status::Ok);
    let status = front_end.ask(ControlKind::ContextDestroy, u64::from(CONTEXT), 0);
    assert_eq!(status, Status::Ok);
    let before = word(&front_end, WORDS);
    std::thread::sleep(Duration::from_millis(30));
    assert_eq!(word(&front_end, WORDS), before);
    front_end.post_report_buffers(1);
    assert_eq!(end_status(&front_end.report()), Status::Cancelled);
}
