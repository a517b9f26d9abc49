// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How programs end, and where; and that an instruction which misses has no effect.

use crate::assembler as asm;
use crate::assembler::{AMO, x};
use hmm_hart::plain::{Missing, Permission, Plain};
use hmm_hart::{Access, Decoder, End, Hart, Pause, RETURN_ADDRESS, Register, Width};

const CODE: u64 = 0x1000;
const DATA: u64 = 0x2000;

fn miss(address: u64, write: bool) -> Missing {
    Missing { address, write }
}

fn program(words: &[u32]) -> (Hart, Plain) {
    let mut memory = Plain::new(CODE, 3);
    memory.put(CODE, words);
    (Hart::new(CODE), memory)
}

fn end(words: &[u32]) -> (Pause<Missing>, Hart) {
    let (mut hart, mut memory) = program(words);
    let mut decoder = Decoder::default();
    let pause = hart.run(&mut memory, &mut decoder, 1000);
    // It ends again in the same way.
    let before = hart.clone();
    assert_eq!(hart.run(&mut memory, &mut decoder, 1000), pause);
    assert_eq!(hart.registers(), before.registers());
    assert_eq!(hart.retired(), before.retired());
    (pause, hart)
}

#[test]
fn a_function_returns_its_value() {
    let (pause, hart) = end(&[asm::addi(x::A0, 0, 42), asm::ret()]);
    assert_eq!(pause, Pause::End(End::Exit(42)));
    assert_eq!(hart.program_counter(), RETURN_ADDRESS);
    assert_eq!(hart.retired(), 2);
}

#[test]
fn exit_ends_a_program() {
    let words = [asm::addi(x::A0, 0, -1), asm::addi(x::A7, 0, 93), asm::ECALL];
    let (pause, hart) = end(&words);
    assert_eq!(pause, Pause::End(End::Exit(u64::MAX)));
    assert_eq!(hart.program_counter(), CODE + 8);
}

#[test]
fn other_calls_and_breakpoints_end_it_too() {
    assert_eq!(end(&[asm::ECALL]).0, Pause::End(End::Breakpoint));
    let (pause, hart) = end(&[asm::addi(x::A0, 0, 1), asm::EBREAK]);
    assert_eq!(pause, Pause::End(End::Breakpoint));
    assert_eq!(hart.program_counter(), CODE + 4);
    // C.EBREAK.
    assert_eq!(end(&[0x9002]).0, Pause::End(End::Breakpoint));
}

#[test]
fn what_a_hart_does_not_have_is_an_illegal_instruction() {
    let illegal = [
        // All zeros and all ones.
        0x0000_0000,
        0xffff_ffff,
        // FADD.S, FLD and C.FLD: no floating-point numbers.
        0x0020_81d3,
        0x0000_b087,
        0x0000_2000,
        // ANDN, ROL and SH1ADD: other values of funct7.
        0x40c5_f533,
        0x60c5_9533,
        0x20c5_a533,
        // SLLI.UW.
        0x0805_951b,
        // CSRRW cycle; CSRRS of another register; CSRRS cycle with a source.
        0xc000_1573,
        0x3000_2573,
        0xc005_a573,
        // MRET, WFI, FENCE.I, LR with a second source, AMO of a half-word, ECALL with a destination.
        0x3020_0073,
        0x1050_0073,
        0x0000_100f,
        asm::r(AMO, 3, 2 << 2, x::A0, x::A1, x::A2),
        asm::r(AMO, 1, 0, x::A0, x::A1, x::A2),
        0x0000_0573,
        // SD with another funct3, LWU's neighbour, branches 2 and 3.
        asm::s(4, x::A1, x::A2, 0),
        asm::i(asm::LOAD, 7, x::A0, x::A1, 0),
        asm::b(2, x::A1, x::A2, 8),
        asm::i(0x67, 1, x::A0, x::A1, 0),
        // C.ADDI4SPN of 0, C.LUI of 0, C.JR x0, C.LWSP to x0.
        0x0004,
        0x6501,
        0x8002,
        0x4002,
    ];
    for word in illegal {
        let (pause, hart) = end(&[asm::addi(x::A1, 0, 8), word]);
        let seen = match word & 3 {
            3 => word,
            _ => word & 0xffff,
        };
        assert_eq!(
            pause,
            Pause::End(End::IllegalInstruction(seen)),
            "{word:#010x}"
        );
        assert_eq!(hart.program_counter(), CODE + 4);
        assert_eq!(hart.retired(), 1);
    }
}

#[test]
fn atomic_accesses_must_be_aligned() {
    let words = |word| [asm::u(0x37, x::A1, 2), asm::addi(x::A1, x::A1, 4), word];
    let cases = [
        (2 << 2, 0, Access::LoadReserved),
        (3 << 2, x::A2, Access::StoreConditional),
        (0, x::A2, Access::Amo),
    ];
    for (funct7, rs2, access) in cases {
        let (pause, hart) = end(&words(asm::r(AMO, 3, funct7, x::A0, x::A1, rs2)));
        assert_eq!(pause, Pause::End(End::Misaligned(DATA + 4, access)));
        assert_eq!(hart.program_counter(), CODE + 8);
        // A word there is aligned.
        let word = asm::r(AMO, 2, funct7, x::A0, x::A1, rs2);
        let (pause, hart) = end(&words(word));
        assert_eq!(pause, Pause::End(End::IllegalInstruction(0)));
        assert_eq!(hart.retired(), 3);
    }
}

#[test]
fn an_endless_loop_uses_up_its_budget() {
    let (mut hart, mut memory) = program(&[asm::addi(x::A0, x::A0, 1), asm::j(0, -4)]);
    let mut decoder = Decoder::default();
    for turn in 1..=5 {
        assert_eq!(hart.run(&mut memory, &mut decoder, 1000), Pause::Budget);
        assert_eq!(hart.retired(), 1000 * turn);
        assert_eq!(hart.get(Register::A0), 500 * turn);
    }
}

#[test]
fn each_access_names_the_first_address_that_misses() {
    let load = asm::i(asm::LOAD, 3, x::A0, x::A1, -4);
    let store = asm::s(3, x::A1, x::A2, -4);
    let amo = asm::r(AMO, 3, 0, x::A0, x::A1, x::A2);
    let (nothing, read) = (Permission::Nothing, Permission::Read);
    // (instruction, a1, page, what it permits, miss)
    let next = DATA + 0x1000;
    let cases = [
        (load, DATA + 0x100, 2, nothing, miss(DATA + 0xfc, false)),
        (load, next, 3, nothing, miss(next, false)),
        (store, next, 3, nothing, miss(next, true)),
        (store, next, 3, read, miss(next, true)),
        (store, next, 2, nothing, miss(next - 4, true)),
        (amo, DATA, 2, read, miss(DATA, true)),
    ];
    for (word, a1, page, permission, miss) in cases {
        let (mut hart, mut memory) = program(&[word]);
        hart.set(Register::A0, 1);
        hart.set(Register::A1, a1);
        hart.set(Register::A2, u64::MAX);
        memory.permit(page << 12, permission);
        let before = (hart.clone(), memory.bytes().to_vec());
        let mut decoder = Decoder::default();
        for _ in 0..2 {
            assert_eq!(hart.run(&mut memory, &mut decoder, 1), Pause::Miss(miss));
            assert_eq!(hart.registers(), before.0.registers());
            assert_eq!((hart.program_counter(), hart.retired()), (CODE, 0));
            assert_eq!(memory.bytes(), before.1);
        }
        memory.permit_all(Permission::Write);
        assert_eq!(hart.run(&mut memory, &mut decoder, 1), Pause::Budget);
        assert_eq!(hart.retired(), 1);
    }
}

#[test]
fn an_instruction_may_lie_in_two_pages() {
    let mut memory = Plain::new(CODE, 3);
    let entry = DATA - 2;
    memory.put(entry, &[asm::addi(x::A0, 0, 9), asm::ret()]);
    memory.permit(DATA, Permission::Nothing);
    let mut hart = Hart::new(entry);
    let mut decoder = Decoder::default();
    let pause = hart.run(&mut memory, &mut decoder, 10);
    assert_eq!(pause, Pause::Miss(miss(DATA, false)));
    assert_eq!(hart.program_counter(), entry);
    memory.permit_all(Permission::Write);
    assert_eq!(
        hart.run(&mut memory, &mut decoder, 10),
        Pause::End(End::Exit(9))
    );
    // One of 2 bytes at the end of a page needs no other page.
    memory.permit(DATA, Permission::Nothing);
    memory.write(entry, Width::Half, 0x4525); // C.LI a0, 9
    let mut hart = Hart::new(entry);
    assert_eq!(hart.run(&mut memory, &mut decoder, 1), Pause::Budget);
    assert_eq!(hart.get(Register::A0), 9);
}

#[test]
fn a_reservation_outlives_a_miss_of_its_store() {
    let words = [
        asm::r(AMO, 3, 2 << 2, x::A0, x::A1, 0),
        asm::r(AMO, 3, 3 << 2, x::A0, x::A1, x::A2),
    ];
    let (mut hart, mut memory) = program(&words);
    hart.set(Register::A1, DATA);
    hart.set(Register::A2, 5);
    let mut decoder = Decoder::default();
    assert_eq!(hart.run(&mut memory, &mut decoder, 1), Pause::Budget);
    memory.permit(DATA, Permission::Nothing);
    assert_eq!(
        hart.run(&mut memory, &mut decoder, 1),
        Pause::Miss(miss(DATA, true))
    );
    memory.permit_all(Permission::Write);
    assert_eq!(hart.run(&mut memory, &mut decoder, 1), Pause::Budget);
    assert_eq!(hart.get(Register::A0), 0);
    assert_eq!(memory.read(DATA, Width::Double), 5);
}

#[test]
fn code_that_changes_is_seen_at_once() {
    let (mut hart, mut memory) = program(&[asm::addi(x::A0, x::A0, 1), asm::j(0, -4)]);
    let mut decoder = Decoder::default();
    assert_eq!(hart.run(&mut memory, &mut decoder, 4), Pause::Budget);
    memory.put(CODE, &[asm::addi(x::A0, x::A0, 100)]);
    assert_eq!(hart.run(&mut memory, &mut decoder, 2), Pause::Budget);
    assert_eq!(hart.get(Register::A0), 102);
}
