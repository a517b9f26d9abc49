// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Each group of instructions against values that were worked out by hand from the manual.

use crate::assembler as asm;
use crate::assembler::{AMO, LOAD, OP, OP_32, OP_IMM, OP_IMM_32, x};
use hmm_hart::plain::Plain;
use hmm_hart::{Decoder, Hart, Pause, Register, Width};

const MIN: u64 = 1 << 63;
const MINUS: fn(u64) -> u64 = u64::wrapping_neg;
const MIN_WORD: u64 = 0xffff_ffff_8000_0000;
/// Where the code of these tests is; the data are a page further on.
const CODE: u64 = 0x1000;
const DATA: u64 = 0x2000;

/// `a0` after one instruction, with `a1` and `a2` as given.
fn one(word: u32, a1: u64, a2: u64) -> u64 {
    let mut memory = Plain::new(CODE, 2);
    memory.put(CODE, &[word]);
    run(&mut memory, a1, a2, 1).get(Register::A0)
}

fn run(memory: &mut Plain, a1: u64, a2: u64, steps: u64) -> Hart {
    let mut hart = Hart::new(CODE);
    hart.set(Register::A1, a1);
    hart.set(Register::A2, a2);
    let pause = hart.run(memory, &mut Decoder::default(), steps);
    assert_eq!(pause, Pause::Budget);
    assert_eq!(hart.retired(), steps);
    hart
}

/// Checks `a0 = a1 op a2` for each (a1, a2, a0).
fn check_registers(opcode: u32, funct3: u32, funct7: u32, values: &[(u64, u64, u64)]) {
    let word = asm::r(opcode, funct3, funct7, x::A0, x::A1, x::A2);
    for (a, b, expected) in values {
        let found = one(word, *a, *b);
        assert_eq!(
            found, *expected,
            "{opcode:#x} {funct3} {funct7:#x}: {a:#x}, {b:#x}"
        );
    }
}

/// Checks `a0 = a1 op immediate` for each (a1, immediate, a0).
fn check_immediate(opcode: u32, funct3: u32, values: &[(u64, i32, u64)]) {
    for (a, immediate, expected) in values {
        let found = one(asm::i(opcode, funct3, x::A0, x::A1, *immediate), *a, 0);
        assert_eq!(
            found, *expected,
            "{opcode:#x} {funct3}: {a:#x}, {immediate:#x}"
        );
    }
}

#[test]
fn additions_and_subtractions() {
    check_registers(OP, 0, 0, &[(3, 7, 10), (u64::MAX, 1, 0), (MIN, MIN, 0)]);
    check_registers(
        OP,
        0,
        0x20,
        &[(3, 7, MINUS(4)), (0, MIN, MIN), (MIN, 1, i64::MAX as u64)],
    );
    check_immediate(
        OP_IMM,
        0,
        &[(5, -2048, MINUS(2043)), (5, 2047, 2052), (u64::MAX, 1, 0)],
    );
    check_registers(OP_32, 0, 0, &[(0x7fff_ffff, 1, MIN_WORD), (1 << 32, 1, 1)]);
    check_registers(
        OP_32,
        0,
        0x20,
        &[(0, 1, u64::MAX), (MIN_WORD, 1, 0x7fff_ffff)],
    );
    check_immediate(
        OP_IMM_32,
        0,
        &[(0x7fff_ffff, 1, MIN_WORD), (0xffff_ffff, 1, 0)],
    );
}

#[test]
fn comparisons() {
    check_registers(
        OP,
        2,
        0,
        &[(MINUS(1), 0, 1), (0, MINUS(1), 0), (4, 4, 0), (MIN, 1, 1)],
    );
    check_registers(OP, 3, 0, &[(MINUS(1), 0, 0), (0, MINUS(1), 1), (4, 4, 0)]);
    check_immediate(OP_IMM, 2, &[(MINUS(5), -4, 1), (0, -1, 0), (2046, 2047, 1)]);
    // The immediate of SLTIU is extended with its sign, and then has none.
    check_immediate(OP_IMM, 3, &[(0, 1, 1), (1, -1, 1), (u64::MAX, -1, 0)]);
}

#[test]
fn logic() {
    let (a, b) = (0xff00_ff00_ff00_ff00, 0x0f0f_0f0f_0f0f_0f0f);
    check_registers(OP, 4, 0, &[(a, b, 0xf00f_f00f_f00f_f00f)]);
    check_registers(OP, 6, 0, &[(a, b, 0xff0f_ff0f_ff0f_ff0f)]);
    check_registers(OP, 7, 0, &[(a, b, 0x0f00_0f00_0f00_0f00)]);
    check_immediate(OP_IMM, 4, &[(a, -1, !a), (a, 0xf, a | 0xf)]);
    check_immediate(OP_IMM, 6, &[(a, -241, 0xffff_ffff_ffff_ff0f), (1, 2, 3)]);
    check_immediate(OP_IMM, 7, &[(a, -256, a), (a, 0x7ff, 0x700)]);
}

#[test]
fn shifts_take_the_low_bits_of_their_amount() {
    check_registers(OP, 1, 0, &[(1, 63, MIN), (1, 64, 1), (3, u64::MAX, MIN)]);
    check_registers(OP, 5, 0, &[(MIN, 63, 1), (MIN, 64, MIN)]);
    check_registers(
        OP,
        5,
        0x20,
        &[(MIN, 63, u64::MAX), (MIN, 4, 0xf800_0000_0000_0000)],
    );
    check_registers(OP_32, 1, 0, &[(1, 31, MIN_WORD), (1, 32, 1), (1, 33, 2)]);
    check_registers(
        OP_32,
        5,
        0,
        &[(MIN_WORD, 31, 1), (0xf_8000_0000, 0, MIN_WORD)],
    );
    check_registers(
        OP_32,
        5,
        0x20,
        &[(MIN_WORD, 31, u64::MAX), (0x7fff_ffff, 30, 1)],
    );
    check_immediate(OP_IMM, 1, &[(1, 63, MIN), (0x21, 32, 0x21_0000_0000)]);
    check_immediate(OP_IMM, 5, &[(MIN, 63, 1), (MIN, 0x400 | 63, u64::MAX)]);
    check_immediate(OP_IMM_32, 1, &[(1, 31, MIN_WORD)]);
    check_immediate(
        OP_IMM_32,
        5,
        &[(MIN_WORD, 31, 1), (MIN_WORD, 0x400 | 31, u64::MAX)],
    );
}

#[test]
fn upper_immediates() {
    assert_eq!(one(asm::u(0x37, x::A0, 0x12345), 0, 0), 0x1234_5000);
    assert_eq!(one(asm::u(0x37, x::A0, 0x80000), 0, 0), MIN_WORD);
    assert_eq!(one(asm::u(0x17, x::A0, 1), 0, 0), CODE + 0x1000);
    assert_eq!(one(asm::u(0x17, x::A0, 0xfffff), 0, 0), 0);
}

#[test]
fn products() {
    check_registers(
        OP,
        0,
        1,
        &[(7, 6, 42), (u64::MAX, u64::MAX, 1), (MIN, 2, 0)],
    );
    check_registers(
        OP,
        1,
        1,
        &[
            (MINUS(1), MINUS(1), 0),
            (MIN, MIN, 1 << 62),
            (MIN, 1, u64::MAX),
        ],
    );
    check_registers(
        OP,
        2,
        1,
        &[
            (MINUS(1), u64::MAX, u64::MAX),
            (1, u64::MAX, 0),
            (MIN, 2, u64::MAX),
        ],
    );
    check_registers(OP, 3, 1, &[(u64::MAX, u64::MAX, MINUS(2)), (MIN, 2, 1)]);
    check_registers(
        OP_32,
        0,
        1,
        &[(0x10000, 0x8000, MIN_WORD), (0xffff_ffff, 2, MINUS(2))],
    );
}

#[test]
fn quotients_with_their_two_special_cases() {
    check_registers(
        OP,
        4,
        1,
        &[
            (20, 6, 3),
            (MINUS(20), 6, MINUS(3)),
            (5, 0, u64::MAX),
            (MIN, u64::MAX, MIN),
        ],
    );
    check_registers(
        OP,
        5,
        1,
        &[
            (20, 6, 3),
            (MINUS(20), 6, 3_074_457_345_618_258_599),
            (5, 0, u64::MAX),
        ],
    );
    check_registers(
        OP,
        6,
        1,
        &[
            (MINUS(20), 6, MINUS(2)),
            (20, MINUS(6), 2),
            (5, 0, 5),
            (MIN, u64::MAX, 0),
        ],
    );
    check_registers(OP, 7, 1, &[(MINUS(20), 6, 2), (5, 0, 5)]);
    check_registers(
        OP_32,
        4,
        1,
        &[
            (20, MINUS(6), MINUS(3)),
            (5, 0, u64::MAX),
            (MIN_WORD, u64::MAX, MIN_WORD),
        ],
    );
    check_registers(
        OP_32,
        5,
        1,
        &[(0xffff_ffff, 1, u64::MAX), (5, 1 << 32, u64::MAX)],
    );
    check_registers(
        OP_32,
        6,
        1,
        &[
            (MINUS(20), 6, MINUS(2)),
            (MIN_WORD, u64::MAX, 0),
            (0x8000_0000, 0, MIN_WORD),
        ],
    );
    check_registers(
        OP_32,
        7,
        1,
        &[
            (0xffff_fffe, 0xffff_ffff, MINUS(2)),
            (0x8000_0000, 0, MIN_WORD),
        ],
    );
}

#[test]
fn loads_extend_as_they_say() {
    let value = 0x8182_8384_8586_8788_u64;
    let signed = [
        0xffff_ffff_ffff_ff88,
        0xffff_ffff_ffff_8788,
        0xffff_ffff_8586_8788,
        value,
    ];
    let unsigned = [0x88, 0x8788, 0x8586_8788];
    let expected = signed.iter().chain(&unsigned);
    for (funct3, expected) in (0..).zip(expected) {
        // Aligned, not aligned, and from one page to the next.
        for at in [0, 8, 1, 3, 0xfff_u64] {
            let mut memory = Plain::new(CODE, 3);
            memory.put(CODE, &[asm::i(LOAD, funct3, x::A0, x::A1, -16)]);
            memory.write(DATA + at, Width::Double, value);
            let hart = run(&mut memory, DATA + at + 16, 0, 1);
            assert_eq!(hart.get(Register::A0), *expected, "{funct3} at {at}");
        }
    }
}

#[test]
fn stores_write_their_width_and_no_more() {
    for (funct3, bytes) in [(0, 1), (1, 2), (2, 4), (3, 8)] {
        for at in [0x100, 0x101, 0xffd_u64] {
            let mut memory = Plain::new(CODE, 3);
            memory.bytes_mut().fill(0xee);
            memory.put(CODE, &[asm::s(funct3, x::A1, x::A2, 5)]);
            let mut expected = memory.bytes().to_vec();
            let value = 0x0102_0304_0506_0708_u64;
            let offset = (DATA - CODE + at + 5) as usize;
            expected[offset..][..bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
            run(&mut memory, DATA + at, value, 1);
            assert_eq!(memory.bytes(), expected, "{funct3} at {at}");
        }
    }
}

#[test]
fn branches_and_jumps() {
    // (funct3, a1, a2, taken)
    let branches = [
        (0, 4, 4, true),
        (0, 4, 5, false),
        (1, 4, 5, true),
        (1, 4, 4, false),
        (4, MINUS(1), 0, true),
        (4, 0, MINUS(1), false),
        (5, 0, 0, true),
        (5, MIN, 0, false),
        (6, 0, MINUS(1), true),
        (6, MINUS(1), 0, false),
        (7, MINUS(1), 0, true),
        (7, 0, MINUS(1), false),
    ];
    for (funct3, a, b, taken) in branches {
        for offset in [-4096, -2, 2, 4094] {
            let mut memory = Plain::new(CODE, 2);
            memory.put(CODE, &[asm::b(funct3, x::A1, x::A2, offset)]);
            let hart = run(&mut memory, a, b, 1);
            let expected = match taken {
                true => CODE.wrapping_add_signed(offset.into()),
                false => CODE + 4,
            };
            assert_eq!(hart.program_counter(), expected, "{funct3} {a:#x} {b:#x}");
        }
    }
    for offset in [-0x10_0000, -2, 2, 0xf_fffe] {
        let mut memory = Plain::new(CODE, 2);
        memory.put(CODE, &[asm::j(x::A0, offset)]);
        let hart = run(&mut memory, 0, 0, 1);
        assert_eq!(
            hart.program_counter(),
            CODE.wrapping_add_signed(offset.into())
        );
        assert_eq!(hart.get(Register::A0), CODE + 4);
    }
    // JALR drops the lowest bit, and reads its source before it writes the same register.
    let mut memory = Plain::new(CODE, 2);
    memory.put(CODE, &[asm::i(0x67, 0, x::A1, x::A1, -7)]);
    let hart = run(&mut memory, DATA, 0, 1);
    assert_eq!(hart.program_counter(), DATA - 8);
    assert_eq!(hart.get(Register::A1), CODE + 4);
}

#[test]
fn writes_to_x0_are_lost() {
    let mut memory = Plain::new(CODE, 2);
    let words = [
        asm::addi(x::ZERO, x::A1, 5),
        asm::i(LOAD, 3, x::ZERO, x::A1, 0),
        asm::j(x::ZERO, 4),
        asm::r(OP, 0, 0, x::A0, x::ZERO, x::ZERO),
    ];
    memory.put(CODE, &words);
    let hart = run(&mut memory, DATA, 0, 4);
    assert_eq!((hart.registers()[0], hart.get(Register::A0)), (0, 0));
}

#[test]
fn atomic_operations_return_the_value_before() {
    let (word, double) = (2, 3);
    // (funct5, funct3, in memory, operand, in memory afterwards)
    let cases = [
        (1, double, 5, 9, 9),
        (0, double, u64::MAX, 2, 1),
        (4, double, 0b1100, 0b1010, 0b0110),
        (12, double, 0b1100, 0b1010, 0b1000),
        (8, double, 0b1100, 0b1010, 0b1110),
        (16, double, MINUS(1), 1, MINUS(1)),
        (20, double, MINUS(1), 1, 1),
        (24, double, MINUS(1), 1, 1),
        (28, double, MINUS(1), 1, MINUS(1)),
        (1, word, 0xdead_8000_0000, 9, 0xdead_0000_0009),
        (0, word, 0xdead_ffff_ffff, 2, 0xdead_0000_0001),
        (16, word, 0xdead_ffff_ffff, 1, 0xdead_ffff_ffff),
        (20, word, 0xdead_ffff_ffff, 1, 0xdead_0000_0001),
        (24, word, 0xdead_ffff_ffff, 1, 0xdead_0000_0001),
        (28, word, 0xdead_ffff_ffff, 1, 0xdead_ffff_ffff),
        // The upper half of the operand of a word does not count.
        (
            28,
            word,
            0xdead_0000_0003,
            0xffff_0000_0002,
            0xdead_0000_0003,
        ),
    ];
    for (funct5, funct3, before, operand, after) in cases {
        let mut memory = Plain::new(CODE, 2);
        memory.put(
            CODE,
            &[asm::r(AMO, funct3, funct5 << 2 | 3, x::A0, x::A1, x::A2)],
        );
        memory.write(DATA, Width::Double, before);
        let hart = run(&mut memory, DATA, operand, 1);
        let loaded = match funct3 {
            2 => Width::Word.sign_extend(before & 0xffff_ffff),
            _ => before,
        };
        assert_eq!(hart.get(Register::A0), loaded, "{funct5} {funct3}");
        assert_eq!(memory.read(DATA, Width::Double), after, "{funct5} {funct3}");
    }
}

#[test]
fn a_store_conditional_needs_its_reservation() {
    let lr = |funct3| asm::r(AMO, funct3, 2 << 2, x::A0, x::A1, 0);
    let sc = |funct3, rs1| asm::r(AMO, funct3, 3 << 2, x::A0, rs1, x::A2);
    let steps = |words: &[u32]| {
        let mut memory = Plain::new(CODE, 2);
        memory.put(CODE, words);
        memory.write(DATA, Width::Double, 0x1_8000_0000);
        let hart = run(&mut memory, DATA, 77, words.len() as u64);
        (hart.get(Register::A0), memory.read(DATA, Width::Double))
    };
    assert_eq!(steps(&[lr(2)]), (MIN_WORD, 0x1_8000_0000));
    assert_eq!(steps(&[lr(3), sc(3, x::A1)]), (0, 77));
    assert_eq!(steps(&[lr(2), sc(2, x::A1)]), (0, 0x1_0000_004d));
    // Without one, of another width, at another address, a second time, and after a change.
    assert_eq!(steps(&[sc(3, x::A1)]), (1, 0x1_8000_0000));
    assert_eq!(steps(&[lr(2), sc(3, x::A1)]), (1, 0x1_8000_0000));
    assert_eq!(
        steps(&[lr(3), asm::addi(x::A3, x::A1, 8), sc(3, x::A3)]).0,
        1
    );
    assert_eq!(steps(&[lr(3), sc(3, x::A1), sc(3, x::A1)]), (1, 77));
    assert_eq!(
        steps(&[lr(3), asm::s(3, x::A1, x::SP, 0), sc(3, x::A1)]),
        (1, 0)
    );
}

#[test]
fn counters() {
    let read = |csr| asm::i(0x73, 2, x::A0, 0, csr);
    let mut memory = Plain::new(CODE, 2);
    memory.put(
        CODE,
        &[asm::addi(x::T0, 0, 1), asm::addi(x::T0, 0, 1), read(0xc02)],
    );
    assert_eq!(run(&mut memory, 0, 0, 3).get(Register::A0), 2);
    assert_eq!(one(read(0xc00), 0, 0), 0);
    assert_eq!(one(read(0xc01), 0, 0), 7_000_000_007);
}

#[test]
fn fences_do_nothing_else() {
    let mut memory = Plain::new(CODE, 2);
    memory.put(CODE, &[0x0330_000f, 0x8330_000f, 0x0ff0_000f]);
    let hart = run(&mut memory, 3, 4, 3);
    assert_eq!(hart.program_counter(), CODE + 12);
    assert_eq!((hart.get(Register::A0), hart.get(Register::A1)), (0, 3));
}
