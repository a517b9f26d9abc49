// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What each instruction does. Every access to memory comes before the first change of the hart, so that a miss leaves the
//! hart as it was.

use crate::arithmetic::{
    div, divu, divuw, divw, extend, mulh, mulhsu, mulhu, rem, remu, remuw, remw, word,
};
use crate::hart::Reservation;
use crate::{Access, End, Hart, Instruction, Memory, Op, Pause, Register, Width};

/// The number of exit among system calls, in `a7`.
const EXIT: u64 = 93;

/// Executes an instruction, whose encoding is `encoding`, and returns the next program counter.
#[inline]
pub(crate) fn execute<M: Memory>(
    hart: &mut Hart,
    memory: &mut M,
    instruction: Instruction,
    encoding: u32,
) -> Result<u64, Pause<M::Miss>> {
    let Instruction {
        op,
        rd,
        rs1,
        rs2,
        bytes,
        immediate,
    } = instruction;
    let at = hart.program_counter;
    let next = at.wrapping_add(bytes.into());
    let a = hart.registers[usize::from(rs1 & 63)];
    let b = hart.registers[usize::from(rs2 & 63)];
    let i = i64::from(immediate).cast_unsigned();
    let address = a.wrapping_add(i);
    let branch = |taken| match taken {
        true => Ok(at.wrapping_add(i)),
        false => Ok(next),
    };
    let shift = |amount: u64, bits: u64| (amount & (bits - 1)) as u32;
    let value = match op {
        Op::Lui => i,
        Op::Auipc => at.wrapping_add(i),
        Op::Jal => {
            hart.write(rd, next);
            return Ok(at.wrapping_add(i));
        }
        Op::Jalr => {
            hart.write(rd, next);
            return Ok(address & !1);
        }
        Op::Beq => return branch(a == b),
        Op::Bne => return branch(a != b),
        Op::Blt => return branch(a.cast_signed() < b.cast_signed()),
        Op::Bge => return branch(a.cast_signed() >= b.cast_signed()),
        Op::Bltu => return branch(a < b),
        Op::Bgeu => return branch(a >= b),
        Op::Load(width) => width.sign_extend(memory.load(address, width).map_err(Pause::Miss)?),
        Op::LoadUnsigned(width) => memory.load(address, width).map_err(Pause::Miss)?,
        Op::Store(width) => {
            memory
                .store(address, width, width.truncate(b))
                .map_err(Pause::Miss)?;
            return Ok(next);
        }
        Op::Addi => address,
        Op::Slti => u64::from(a.cast_signed() < i.cast_signed()),
        Op::Sltiu => u64::from(a < i),
        Op::Xori => a ^ i,
        Op::Ori => a | i,
        Op::Andi => a & i,
        Op::Slli => a << shift(i, 64),
        Op::Srli => a >> shift(i, 64),
        Op::Srai => (a.cast_signed() >> shift(i, 64)).cast_unsigned(),
        Op::Addiw => extend(word(address)),
        Op::Slliw => extend(word(a) << shift(i, 32)),
        Op::Srliw => extend(((a as u32) >> shift(i, 32)).cast_signed()),
        Op::Sraiw => extend(word(a) >> shift(i, 32)),
        Op::Add => a.wrapping_add(b),
        Op::Sub => a.wrapping_sub(b),
        Op::Sll => a << shift(b, 64),
        Op::Slt => u64::from(a.cast_signed() < b.cast_signed()),
        Op::Sltu => u64::from(a < b),
        Op::Xor => a ^ b,
        Op::Srl => a >> shift(b, 64),
        Op::Sra => (a.cast_signed() >> shift(b, 64)).cast_unsigned(),
        Op::Or => a | b,
        Op::And => a & b,
        Op::Addw => extend(word(a.wrapping_add(b))),
        Op::Subw => extend(word(a.wrapping_sub(b))),
        Op::Sllw => extend(word(a) << shift(b, 32)),
        Op::Srlw => extend(((a as u32) >> shift(b, 32)).cast_signed()),
        Op::Sraw => extend(word(a) >> shift(b, 32)),
        Op::Mul => a.wrapping_mul(b),
        Op::Mulh => mulh(a, b),
        Op::Mulhsu => mulhsu(a, b),
        Op::Mulhu => mulhu(a, b),
        Op::Div => div(a, b),
        Op::Divu => divu(a, b),
        Op::Rem => rem(a, b),
        Op::Remu => remu(a, b),
        Op::Mulw => extend(word(a).wrapping_mul(word(b))),
        Op::Divw => divw(a, b),
        Op::Divuw => divuw(a, b),
        Op::Remw => remw(a, b),
        Op::Remuw => remuw(a, b),
        Op::LoadReserved(width) => load_reserved(hart, memory, a, width)?,
        Op::StoreConditional(width) => store_conditional(hart, memory, a, width, b)?,
        Op::Amo(amo, width) => {
            check_aligned(a, width, Access::Amo)?;
            let before = memory.amo(a, width, amo, width.truncate(b));
            width.sign_extend(before.map_err(Pause::Miss)?)
        }
        Op::Fence => {
            memory.fence();
            return Ok(next);
        }
        Op::ReadRetired => hart.retired,
        Op::ReadTime => memory.time(),
        Op::Ecall if hart.get(Register::A7) == EXIT => {
            return Err(Pause::End(End::Exit(hart.get(Register::A0))));
        }
        Op::Ecall | Op::Ebreak => return Err(Pause::End(End::Breakpoint)),
        Op::Illegal => {
            let encoding = match bytes {
                2 => encoding & 0xffff,
                _ => encoding,
            };
            return Err(Pause::End(End::IllegalInstruction(encoding)));
        }
    };
    hart.write(rd, value);
    Ok(next)
}

impl Hart {
    #[inline]
    fn write(&mut self, register: u8, value: u64) {
        self.registers[usize::from(register & 63)] = value;
    }
}

fn load_reserved<M: Memory>(
    hart: &mut Hart,
    memory: &mut M,
    address: u64,
    width: Width,
) -> Result<u64, Pause<M::Miss>> {
    check_aligned(address, width, Access::LoadReserved)?;
    let value = memory.load_reserved(address, width).map_err(Pause::Miss)?;
    hart.reservation = Some(Reservation {
        address,
        width,
        value,
    });
    Ok(width.sign_extend(value))
}

/// 0 where the store was done, 1 where not. The reservation is gone afterwards, but not where the access missed.
fn store_conditional<M: Memory>(
    hart: &mut Hart,
    memory: &mut M,
    address: u64,
    width: Width,
    value: u64,
) -> Result<u64, Pause<M::Miss>> {
    check_aligned(address, width, Access::StoreConditional)?;
    let reserved = hart
        .reservation
        .filter(|reservation| (reservation.address, reservation.width) == (address, width));
    let stored = match reserved {
        Some(Reservation {
            value: expected, ..
        }) => memory
            .compare_exchange(address, width, expected, width.truncate(value))
            .map_err(Pause::Miss)?,
        None => false,
    };
    hart.reservation = None;
    Ok(u64::from(!stored))
}

fn check_aligned<Miss>(address: u64, width: Width, access: Access) -> Result<(), Pause<Miss>> {
    match width.is_aligned(address) {
        true => Ok(()),
        false => Err(Pause::End(End::Misaligned(address, access))),
    }
}
