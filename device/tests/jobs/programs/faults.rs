// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Pages that come and go under a program.

use std::time::{Duration, Instant};

use hmm_front_end::{FrontEnd, end_status};
use hmm_protocol::{FaultAccess, JobKind, MapEntry, MapFlags, Report, ReportKind, Status};

use super::{CODE, Call, STACKS, WORDS, guest, map_all, word, write_code};
use crate::{
    ALL, CONTEXT, PAGE,
    assembler::{self as asm, x},
    map, start,
};

/// Maps what a fault wants and no more.
fn map_page(fault: &Report) -> Vec<MapEntry> {
    let page = fault.address.get() & !(PAGE - 1);
    let flags = match FaultAccess(fault.status) {
        FaultAccess::WRITE => MapFlags::READ.union(MapFlags::WRITE),
        FaultAccess::ATOMIC => ALL,
        _ => MapFlags::READ,
    };
    vec![
        MapEntry::map(page, PAGE, guest(page), flags, 12),
        MapEntry::resume(fault.value.get()),
    ]
}

#[test]
fn each_page_faults_once_for_each_kind_of_access() {
    let (_process, mut front_end) = start(&[]);
    let code = [
        asm::i(asm::LOAD, 3, x::A1, x::A0, 8),
        asm::s(3, x::A0, x::A1, 16),
        asm::r(asm::AMO, 3, 0, x::A2, x::A0, x::A1),
        // A store from one page to the next: two faults, and nothing of it before the second.
        asm::u(0x37, x::T0, 1),
        asm::r(asm::OP, 0, 0, x::T0, x::T0, x::A0),
        asm::s(3, x::T0, x::A1, -4),
        asm::s(3, x::SP, x::A1, -8),
        asm::ret(),
    ];
    write_code(&front_end, &code);
    front_end.guest.write(guest(WORDS), &5u64.to_le_bytes());
    front_end
        .guest
        .write(guest(WORDS + 8), &37u64.to_le_bytes());
    let call = Call {
        arguments: [WORDS, 0, 0, 0, 0, 0],
        ..Call::default()
    };
    let mut seen = Vec::new();
    let split = word(&front_end, WORDS + PAGE - 8);
    let arguments = call.arguments();
    let report =
        front_end.run_job_with(JobKind::Program, call.flags, CONTEXT, &arguments, |fault| {
            let access = FaultAccess(fault.status);
            seen.push((access, fault.address.get(), fault.program_counter.get()));
            map_page(fault)
        });
    assert_eq!(end_status(&report), Status::Ok);
    assert_eq!(
        report.amount.get(),
        code.len() as u64,
        "nothing is counted twice"
    );
    let expected = [
        (FaultAccess::FETCH, CODE, CODE),
        (FaultAccess::READ, WORDS + 8, CODE),
        (FaultAccess::WRITE, WORDS + 16, CODE + 4),
        (FaultAccess::ATOMIC, WORDS, CODE + 8),
        (FaultAccess::WRITE, WORDS + PAGE, CODE + 20),
        (FaultAccess::WRITE, STACKS - 8, CODE + 24),
    ];
    assert_eq!(seen, expected);
    assert_eq!(report.faults.get(), 6);
    assert_eq!(split, 0);
    assert_eq!(word(&front_end, WORDS), 42);
    assert_eq!(word(&front_end, WORDS + 16), 37);
    assert_eq!(word(&front_end, WORDS + PAGE - 4), 37);
    assert_eq!(word(&front_end, STACKS - 8), 37);
}

/// Adds each word to `a0[hart]`: a sum over pages that are unmapped all the time.
fn summing_code() -> [u32; 10] {
    [
        // t1 = &words[16 * 512], t2 = a0 + 8 * hart
        asm::i(asm::OP_IMM, 1, x::T2, x::A5, 3),
        asm::r(asm::OP, 0, 0, x::T2, x::T2, x::A1),
        // The loop: a count of a2 words.
        asm::i(asm::LOAD, 3, x::T0, x::A0, 0),
        asm::i(asm::LOAD, 3, x::T1, x::T2, 0),
        asm::r(asm::OP, 0, 0, x::T1, x::T1, x::T0),
        asm::s(3, x::T2, x::T1, 0),
        asm::addi(x::A0, x::A0, 8),
        asm::addi(x::A2, x::A2, -1),
        asm::b(1, x::A2, 0, -24),
        asm::ret(),
    ]
}

#[test]
fn no_instruction_has_its_effect_twice_while_pages_come_and_go() {
    const HARTS: u64 = 6;
    const COUNT: u64 = 12 * 512;
    let (process, mut front_end) = start(&["--executors", "3"]);
    write_code(&front_end, &summing_code());
    let bytes: Vec<u8> = (0..COUNT)
        .flat_map(|index| (index * index).to_le_bytes())
        .collect();
    front_end.guest.write(guest(WORDS), &bytes);
    let sums = WORDS + 14 * PAGE;
    let call = Call {
        harts: HARTS,
        arguments: [WORDS, sums, COUNT, 0, 0, 0],
        ..Call::default()
    };
    let job = call.job(&front_end);
    assert_eq!(front_end.submit_job(&job).status(), Status::Ok);
    front_end.post_report_buffers(64);
    let (mut faults, mut turn) = (0u32, 0u64);
    let end = loop {
        // Takes a page away at each turn, also while harts work on it.
        turn += 1;
        let page = WORDS + turn * 7 % 15 * PAGE;
        map(&mut front_end, &[MapEntry::unmap(page, PAGE)]);
        if turn % 5 == 0 {
            map(&mut front_end, &[MapEntry::unmap(CODE, PAGE)]);
        }
        if turn % 3 == 0 {
            map(
                &mut front_end,
                &[MapEntry::protect(sums, PAGE, MapFlags::READ)],
            );
        }
        let Some(report) = front_end.poll_report() else {
            continue;
        };
        front_end.post_report_buffers(1);
        if report.kind == ReportKind::JobEnd as u8 {
            break report;
        }
        faults += 1;
        map(&mut front_end, &map_page(&report));
    };
    assert_eq!(end_status(&end), Status::Ok, "{end:?}");
    assert_eq!(end.faults.get(), faults);
    assert!(faults > 12, "{faults}");
    assert_eq!(end.amount.get(), HARTS * (3 + 7 * COUNT));
    let sum: u64 = (0..COUNT).map(|index| index * index).sum();
    for hart in 0..HARTS {
        assert_eq!(word(&front_end, sums + 8 * hart), sum, "hart {hart}");
    }
    assert_eq!(front_end.guest.read(guest(WORDS), bytes.len()), bytes);
    let stats = process.command_ok(r#"{"command":"stats"}"#);
    assert_eq!(stats["stats"]["jobs"]["faults"], faults, "{stats}");
}

/// Counts at a0 for ever.
fn counting(front_end: &mut FrontEnd) {
    let code = [
        asm::addi(x::T0, x::T0, 1),
        asm::s(3, x::A0, x::T0, 0),
        asm::j(0, -8),
    ];
    write_code(front_end, &code);
    map_all(front_end);
}

#[test]
fn after_an_unmap_no_hart_writes() {
    let (_process, mut front_end) = start(&["--executors", "3"]);
    counting(&mut front_end);
    let call = Call {
        harts: 3,
        arguments: [WORDS, 0, 0, 0, 0, 0],
        ..Call::default()
    };
    let job = call.job(&front_end);
    assert_eq!(front_end.submit_job(&job).status(), Status::Ok);
    front_end.post_report_buffers(16);
    let started = Instant::now();
    for round in 0..20 {
        let before = word(&front_end, WORDS);
        while word(&front_end, WORDS) == before {
            assert!(started.elapsed() < Duration::from_secs(60), "no hart works");
        }
        let change = match round % 3 {
            0 => MapEntry::unmap(WORDS, PAGE),
            1 => MapEntry::protect(WORDS, PAGE, MapFlags::READ),
            // The code: nothing can be fetched any more.
            _ => MapEntry::unmap(CODE, PAGE),
        };
        map(&mut front_end, &[change]);
        let after = word(&front_end, WORDS);
        std::thread::sleep(Duration::from_millis(3));
        assert_eq!(word(&front_end, WORDS), after, "round {round}");
        // The harts wait, each with a fault of its own.
        let faults: Vec<Report> = (0..3).map(|_| front_end.report()).collect();
        front_end.post_report_buffers(faults.len());
        for fault in &faults {
            assert_eq!(fault.kind, ReportKind::Fault as u8, "{fault:?}");
            map(&mut front_end, &map_page(fault));
        }
    }
}
