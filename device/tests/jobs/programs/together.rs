// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Harts, jobs and the guest's processor on the same words.

use std::{
    sync::atomic::{AtomicU64, Ordering::SeqCst},
    thread,
};

use hmm_front_end::{FrontEnd, end_status};
use hmm_protocol::{JobFlags, JobKind, Status};
use vm_memory::{GuestAddress, GuestMemoryBackend, VolatileMemory};

use super::{Call, WORDS, guest, map_all, word, write_code};
use crate::{
    CONTEXT,
    assembler::{self as asm, x},
    start,
};

const HARTS: u64 = 8;
const ROUNDS: u64 = 20_000;

/// Runs `code` on eight harts with a0 = the words and a1 = the rounds, adds to the first word by a job and by this thread meanwhile,
/// and returns what the word is at the end.
fn run(code: &[u32]) -> (FrontEnd, u64) {
    let (_process, mut front_end) = start(&["--executors", "3"]);
    write_code(&front_end, code);
    map_all(&mut front_end);
    let call = Call {
        harts: HARTS,
        arguments: [WORDS, ROUNDS, 0, 0, 0, 0],
        ..Call::default()
    };
    let program = call.job(&front_end);
    assert_eq!(front_end.submit_job(&program).status(), Status::Ok);
    let none = JobFlags::default();
    let adding = front_end.job(JobKind::AtomicAdd, none, CONTEXT, &[WORDS, 1, 1000, 8]);
    assert_eq!(front_end.submit_job(&adding).status(), Status::Ok);
    let slice = (front_end.guest.memory)
        .get_slice(GuestAddress(guest(WORDS)), 8)
        .expect("guest memory");
    let first: &AtomicU64 = slice.get_atomic_ref(0).expect("an aligned word");
    let mut mine = 0;
    let mut last = 0;
    for _ in 0..ROUNDS {
        let before = first.fetch_add(1, SeqCst);
        assert!(before >= last, "it only grows");
        (last, mine) = (before, mine + 1);
        if mine % 100 == 0 {
            thread::yield_now();
        }
    }
    front_end.post_report_buffers(2);
    for _ in 0..2 {
        let report = front_end.report();
        assert_eq!(end_status(&report), Status::Ok, "{report:?}");
    }
    let found = word(&front_end, WORDS);
    (front_end, found)
}

#[test]
fn atomic_additions_are_atomic_against_everything() {
    let code = [
        asm::addi(x::T0, 0, 1),
        asm::r(asm::AMO, 3, 0, 0, x::A0, x::T0),
        asm::addi(x::A1, x::A1, -1),
        asm::b(1, x::A1, 0, -8),
        asm::ret(),
    ];
    assert_eq!(run(&code).1, HARTS * ROUNDS + 1000 + ROUNDS);
}

#[test]
fn conditional_stores_are_atomic_against_everything() {
    let code = [
        asm::r(asm::AMO, 3, 2 << 2, x::T0, x::A0, 0),
        asm::addi(x::T0, x::T0, 1),
        asm::r(asm::AMO, 3, 3 << 2, x::T1, x::A0, x::T0),
        asm::b(1, x::T1, 0, -12),
        asm::addi(x::A1, x::A1, -1),
        asm::b(1, x::A1, 0, -20),
        asm::ret(),
    ];
    assert_eq!(run(&code).1, HARTS * ROUNDS + 1000 + ROUNDS);
}

#[test]
fn words_of_four_bytes_do_not_touch_their_neighbours() {
    // AMOADD.W of -1 at the first word's upper half, and a spin lock in the next word around a plain counter.
    let code = [
        asm::addi(x::T0, 0, 1),
        asm::addi(x::A3, x::A0, 8),
        // The lock: AMOSWAP.W.AQ until it was 0.
        asm::r(asm::AMO, 2, 1 << 2 | 2, x::T1, x::A3, x::T0),
        asm::b(1, x::T1, 0, -4),
        asm::i(asm::LOAD, 3, x::T2, x::A0, 16),
        asm::addi(x::T2, x::T2, 1),
        asm::s(3, x::A0, x::T2, 16),
        // AMOSWAP.W.RL of 0 gives it back.
        asm::r(asm::AMO, 2, 1 << 2 | 1, 0, x::A3, 0),
        asm::addi(x::A4, x::A0, 4),
        asm::r(asm::AMO, 2, 0, 0, x::A4, x::T0),
        asm::addi(x::A1, x::A1, -1),
        asm::b(1, x::A1, 0, -36),
        asm::ret(),
    ];
    let (front_end, first) = run(&code);
    assert_eq!(first & 0xffff_ffff, 1000 + ROUNDS);
    assert_eq!(first >> 32, HARTS * ROUNDS);
    assert_eq!(word(&front_end, WORDS + 16), HARTS * ROUNDS);
    assert_eq!(word(&front_end, WORDS + 8), 0);
}
