// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Arguments, stacks, results, harts.

use hmm_front_end::{FrontEnd, Layout, Process, end_status};
use hmm_protocol::{Features, JobKind, PROGRAM_RETURN, Status};

use super::{Call, STACK, STACKS, WORDS, map_all, word, write_code};
use crate::{
    CONTEXT, PROGRAM,
    assembler::{self as asm, x},
    create, start,
};

#[test]
fn a_function_gets_its_arguments_and_returns_its_value() {
    let (_process, mut front_end) = start(&[]);
    // Stores all that a hart begins with at a0, and returns a0 + a1 * a2.
    let stored = [
        x::RA,
        x::SP,
        x::GP,
        x::TP,
        x::A0,
        x::A1,
        x::A2,
        x::A3,
        x::A4,
        x::A5,
        x::T0,
    ];
    let mut code: Vec<u32> = (0..)
        .zip(stored)
        .map(|(index, register)| asm::s(3, x::A0, register, 8 * index))
        .collect();
    code.push(asm::r(asm::OP, 0, 1, x::A1, x::A1, x::A2));
    code.push(asm::r(asm::OP, 0, 0, x::A0, x::A0, x::A1));
    code.push(asm::ret());
    write_code(&front_end, &code);
    map_all(&mut front_end);
    let call = Call {
        arguments: [WORDS, 6, 7, 8, 9, 10],
        ..Call::default()
    };
    let report = front_end.run_job(JobKind::Program, call.flags, CONTEXT, &call.arguments());
    assert_eq!(end_status(&report), Status::Ok);
    assert_eq!(report.value.get(), WORDS + 42);
    assert_eq!(report.amount.get(), code.len() as u64);
    assert_eq!(report.program_counter.get(), PROGRAM_RETURN);
    assert_eq!((report.address.get(), report.faults.get()), (0, 0));
    let expected = [PROGRAM_RETURN, STACKS, 10, 0, WORDS, 6, 7, 8, 9, 0, 0];
    let found: Vec<u64> = (0..expected.len() as u64)
        .map(|index| word(&front_end, WORDS + 8 * index))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn each_hart_has_its_number_and_its_stack() {
    let (process, mut front_end) = start(&["--executors", "3"]);
    // words[number] = sp, and the number on its own stack.
    let code = [
        asm::i(asm::OP_IMM, 1, x::T0, x::A5, 3),
        asm::r(asm::OP, 0, 0, x::T0, x::T0, x::A0),
        asm::s(3, x::T0, x::SP, 0),
        asm::s(3, x::SP, x::TP, -8),
        asm::addi(x::A0, x::A5, 100),
        asm::addi(x::A7, 0, 93),
        asm::ECALL,
    ];
    write_code(&front_end, &code);
    map_all(&mut front_end);
    let call = Call {
        harts: 16,
        arguments: [WORDS, 0, 0, 0, 0, 0],
        ..Call::default()
    };
    let report = front_end.run_job(JobKind::Program, call.flags, CONTEXT, &call.arguments());
    assert_eq!(end_status(&report), Status::Ok);
    assert_eq!(report.value.get(), 100, "the result of hart 0");
    assert_eq!(report.amount.get(), 16 * 6);
    for hart in 0..16 {
        let sp = STACKS - hart * STACK;
        assert_eq!(word(&front_end, WORDS + 8 * hart), sp);
        assert_eq!(word(&front_end, sp - 8), hart);
    }
    let stats = process.command_ok(r#"{"command":"stats"}"#);
    assert_eq!(stats["stats"]["jobs"]["ends"]["ok"], 1, "{stats}");
}

#[test]
fn more_harts_than_the_device_has_are_refused() {
    let (_process, mut front_end) = start(&["--max-harts", "5"]);
    assert_eq!(front_end.config().max_harts.get(), 5);
    write_code(&front_end, &[asm::ret()]);
    map_all(&mut front_end);
    for (harts, status) in [
        (5, Status::Ok),
        (6, Status::BadCount),
        (1 << 40, Status::BadCount),
    ] {
        let call = Call {
            harts,
            ..Call::default()
        };
        let job = call.job(&front_end);
        assert_eq!(front_end.submit_job(&job).status(), status, "{harts}");
    }
    front_end.post_report_buffers(1);
    assert_eq!(end_status(&front_end.report()), Status::Ok);
}

#[test]
fn no_program_runs_where_they_were_not_negotiated() {
    let process = Process::start(PROGRAM, &["--memory", "16M", "--max-harts", "0"]);
    let mut front_end = FrontEnd::start(&process.socket(), 1, &Layout::default());
    front_end.open();
    create(&mut front_end, CONTEXT);
    assert!(!front_end.negotiated().contains(Features::PROGRAMS));
    assert_eq!(front_end.config().max_harts.get(), 0);
    let job = Call::default().job(&front_end);
    assert_eq!(front_end.submit_job(&job).status(), Status::BadOp);
}
