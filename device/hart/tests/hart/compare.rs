// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Harts against a plain interpreter, with and without misses.

use crate::assembler as asm;
use crate::model::{Model, Stop, expand};
use hmm_hart::plain::{PAGE_BYTES, Permission, Plain};
use hmm_hart::{Decoder, End, Hart, Instruction, Op, Pause, Register, Width};
use proptest::prelude::*;

const BASE: u64 = 0x10_0000;
const PAGES: usize = 8;
/// Where the data pointers of the tests point.
const DATA: u64 = BASE + 0x4000;

#[test]
fn each_compressed_instruction_is_the_one_that_it_stands_for() {
    let mut decoder = Decoder::default();
    let mut legal = 0;
    for half in (0..=u16::MAX).filter(|half| half & 3 != 3) {
        let found = decoder.decode(half.into());
        assert_eq!(found.bytes, 2, "{half:#06x}");
        let Some(word) = expand(half) else {
            assert_eq!(found.op, Op::Illegal, "{half:#06x}");
            continue;
        };
        legal += 1;
        let expected = decoder.decode(word);
        assert_ne!(expected.op, Op::Illegal, "{half:#06x}");
        // A hint only writes to `x0`; it may be decoded as another one.
        let hint = is_pure(expected.op) && expected.rd == 32;
        match hint {
            true => assert_eq!((found.rd, is_pure(found.op)), (32, true), "{half:#06x}"),
            false => assert_eq!(
                found,
                Instruction {
                    bytes: 2,
                    ..expected
                },
                "{half:#06x}"
            ),
        }
    }
    // 3 * 16384 without what is reserved, custom or of floating-point numbers.
    assert_eq!(legal, 38_551);
}

/// Whether it does no more than write its destination.
fn is_pure(op: Op) -> bool {
    matches!(op, Op::Addi | Op::Add | Op::Lui | Op::Slli)
}

/// An instruction that is often a meaningful one: fields of any value in the opcodes that a hart has.
fn word() -> impl Strategy<Value = u32> {
    let registers = (0..32_u32, 0..32_u32, 0..32_u32);
    let opcode = prop::sample::select(vec![0x37_u32, 0x17, 0x13, 0x13, 0x1b, 0x33, 0x33, 0x3b]);
    let arithmetic = (opcode, 0..8_u32, registers.clone(), any::<u32>()).prop_map(
        |(opcode, funct3, (rd, rs1, rs2), random)| match opcode {
            0x33 | 0x3b => {
                let funct7 = [0, 1, 1, 0x20][random as usize % 4];
                asm::r(opcode, funct3, funct7, rd, rs1, rs2)
            }
            0x1b if funct3 & 3 == 1 => asm::i(
                opcode,
                funct3,
                rd,
                rs1,
                ((random % 32) | ((random & 0x40) << 4)) as i32,
            ),
            0x13 if funct3 & 3 == 1 => asm::i(
                opcode,
                funct3,
                rd,
                rs1,
                ((random % 64) | ((random & 0x40) << 4)) as i32,
            ),
            _ => opcode | rd << 7 | funct3 << 12 | rs1 << 15 | (random & 0xfff0_0000),
        },
    );
    // Through s0 and s1, which point to the data in the beginning.
    let access = (
        prop::bool::ANY,
        0..8_u32,
        8..10_u32,
        registers.clone(),
        -600..600_i32,
    )
        .prop_map(
            |(store, funct3, pointer, (rd, rs2, _), offset)| match store {
                true => asm::s(funct3 & 3, pointer, rs2, offset),
                false => asm::i(asm::LOAD, funct3, rd, pointer, offset),
            },
        );
    let atomic = (0..32_u32, 2..4_u32, 0..4_u32, 8..10_u32, registers.clone()).prop_map(
        |(kind, funct3, order, pointer, (rd, rs2, _))| {
            let rs2 = if kind == 2 { 0 } else { rs2 };
            asm::r(asm::AMO, funct3, kind << 2 | order, rd, pointer, rs2)
        },
    );
    let reserved = (2..4_u32, prop::bool::ANY, 8..10_u32, registers.clone()).prop_map(
        |(funct3, load, pointer, (rd, rs2, _))| match load {
            true => asm::r(asm::AMO, funct3, 2 << 2, rd, pointer, 0),
            false => asm::r(asm::AMO, funct3, 3 << 2, rd, pointer, rs2),
        },
    );
    let branch = (0..8_u32, registers, 1..12_i32)
        .prop_map(|(funct3, (rs1, rs2, _), over)| asm::b(funct3, rs1, rs2, 2 * over));
    let jump = (0..32_u32, 1..12_i32).prop_map(|(rd, over)| asm::j(rd, 2 * over));
    let counter = (0..32_u32, 0..4_i32).prop_map(|(rd, csr)| asm::i(0x73, 2, rd, 0, 0xc00 + csr));
    let compressed = (any::<u16>(), any::<u16>())
        .prop_map(|(low, high)| u32::from((low & !3) | (low % 3)) | u32::from(high) << 16);
    prop_oneof![
        6 => arithmetic,
        4 => access,
        2 => atomic,
        2 => reserved,
        2 => branch,
        1 => jump,
        1 => counter,
        4 => compressed,
        1 => any::<u32>(),
    ]
}

fn interesting() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        any::<u32>().prop_map(u64::from),
        prop::sample::select(vec![
            0,
            1,
            2,
            u64::MAX,
            1 << 63,
            (1 << 63) - 1,
            1 << 31,
            0xffff_ffff
        ]),
        (0..64_u32).prop_map(|shift| 1 << shift),
    ]
}

/// Where the data pointers of a program point: at a page's edge, too, and not always aligned.
fn pointer() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(DATA + 0x800),
        (0..0x2000_u64).prop_map(|offset| DATA + 0x1000 + offset),
        (0..16_u64).prop_map(|offset| DATA + 0x1ff8 + offset),
        (0..16_u64).prop_map(|offset| DATA + 0x1000 - 8 + offset * 8),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    /// A program has the same effect as in the model, although at first every page misses, one half of them for reads and the
    /// other for writes, and although the hart runs in slices.
    #[test]
    fn a_program_does_what_the_model_does(
        words in prop::collection::vec(word(), 1..60),
        values in prop::collection::vec(interesting(), 32),
        pointers in (pointer(), pointer()),
        entry in prop::sample::select(vec![BASE, BASE + 2, BASE + 0xff0, BASE + 0xffe]),
        slice in 1..50_u64,
    ) {
        let mut memory = Plain::new(BASE, PAGES);
        for (index, byte) in memory.bytes_mut()[0x4000..].iter_mut().enumerate() {
            *byte = ((index * 37) >> 3) as u8;
        }
        memory.put(entry, &words);
        let mut hart = Hart::new(entry);
        let mut model = Model {
            x: [0; 32],
            pc: entry,
            base: BASE,
            bytes: memory.bytes().to_vec(),
            retired: 0,
            reservation: None,
        };
        // The registers that a hart's owner can set, and the two pointers by way of a program.
        let mut preamble = Plain::new(0, 1);
        let loads: Vec<u32> = (1..32).map(|rd| asm::i(asm::LOAD, 3, rd, 0, 0x400 + 8 * rd as i32)).collect();
        preamble.put(0, &loads);
        for (register, value) in values.iter().enumerate() {
            let value = match register {
                8 => pointers.0,
                9 => pointers.1,
                _ => *value,
            };
            preamble.write(0x400 + 8 * register as u64, Width::Double, value);
            if register != 0 {
                model.x[register] = value;
            }
        }
        let mut decoder = Decoder::default();
        let mut loader = Hart::new(0);
        prop_assert_eq!(loader.run(&mut preamble, &mut decoder, 31), Pause::Budget);
        hart = loader.at(hart.program_counter());
        model.retired = hart.retired();

        for page in 0..PAGES {
            let address = BASE + (page * PAGE_BYTES) as u64;
            memory.permit(address, [Permission::Nothing, Permission::Read][page % 2]);
        }

        let mut stop = None;
        for _ in 0..300 {
            if let Err(reason) = model.step() {
                stop = Some(reason);
                break;
            }
        }
        let executed = model.retired - hart.retired();
        let mut left = executed + u64::from(stop.is_some());
        let end = loop {
            let before = (hart.retired(), hart.clone(), memory.bytes().to_vec());
            let pause = hart.run(&mut memory, &mut decoder, slice.min(left));
            left -= hart.retired() - before.0;
            match pause {
                Pause::Budget if left == 0 => break None,
                Pause::Budget => {}
                Pause::Miss(missing) => {
                    if hart.retired() == before.0 {
                        // The instruction that missed changed nothing.
                        prop_assert_eq!(hart.registers(), before.1.registers());
                        prop_assert_eq!(memory.bytes(), &before.2);
                    }
                    let now = memory.permission(missing.address);
                    let known = memory.bytes().len() as u64 > missing.address.wrapping_sub(BASE);
                    let needed = [Permission::Read, Permission::Write][usize::from(missing.write)];
                    prop_assert!(now < needed);
                    memory.permit(missing.address, needed);
                    if !known {
                        break Some(Stop::Outside);
                    }
                }
                Pause::End(End::Exit(value)) => {
                    prop_assert_eq!(value, hart.get(Register::A0));
                    break Some(Stop::Exit);
                }
                Pause::End(End::IllegalInstruction(_)) => break Some(Stop::Illegal),
                Pause::End(End::Breakpoint) => break Some(Stop::Breakpoint),
                Pause::End(End::Misaligned(..)) => break Some(Stop::Misaligned),
            }
        };
        prop_assert_eq!(end, stop);
        prop_assert_eq!(hart.program_counter(), model.pc);
        prop_assert_eq!(hart.registers(), &model.x[..]);
        prop_assert_eq!(hart.retired(), model.retired);
        prop_assert_eq!(memory.bytes(), &model.bytes);
    }
}
