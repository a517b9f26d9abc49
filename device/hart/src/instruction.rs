// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A decoded instruction, as the executor wants it.

use crate::{Amo, Width};

/// What an instruction does. Compressed instructions are the ones that they stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // The names are those of the RISC-V manual.
pub enum Op {
    Lui,
    Auipc,
    Jal,
    Jalr,
    Beq,
    Bne,
    Blt,
    Bge,
    Bltu,
    Bgeu,
    /// Loads with the sign.
    Load(Width),
    /// Loads without a sign.
    LoadUnsigned(Width),
    Store(Width),
    Addi,
    Slti,
    Sltiu,
    Xori,
    Ori,
    Andi,
    Slli,
    Srli,
    Srai,
    Addiw,
    Slliw,
    Srliw,
    Sraiw,
    Add,
    Sub,
    Sll,
    Slt,
    Sltu,
    Xor,
    Srl,
    Sra,
    Or,
    And,
    Addw,
    Subw,
    Sllw,
    Srlw,
    Sraw,
    Mul,
    Mulh,
    Mulhsu,
    Mulhu,
    Div,
    Divu,
    Rem,
    Remu,
    Mulw,
    Divw,
    Divuw,
    Remw,
    Remuw,
    LoadReserved(Width),
    StoreConditional(Width),
    Amo(Amo, Width),
    Fence,
    /// `rdcycle` and `rdinstret`: a hart takes one cycle for an instruction.
    ReadRetired,
    ReadTime,
    Ecall,
    Ebreak,
    /// No instruction that a hart has.
    Illegal,
}

/// Index of the register that takes what is written to `x0`, and is never read.
pub(crate) const SINK: u8 = 32;

/// One instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// What it does.
    pub op: Op,
    /// Destination register; 32 where it is `x0` or there is none.
    pub rd: u8,
    /// First source register, 0 where there is none.
    pub rs1: u8,
    /// Second source register, 0 where there is none.
    pub rs2: u8,
    /// Bytes of its encoding: 2 or 4.
    pub bytes: u8,
    /// The immediate operand, for a shift the number of bits.
    pub immediate: i32,
}

impl Instruction {
    /// What an encoding of `bytes` bytes is that stands for nothing.
    pub(crate) const fn illegal(bytes: u8) -> Self {
        Self {
            op: Op::Illegal,
            rd: SINK,
            rs1: 0,
            rs2: 0,
            bytes,
            immediate: 0,
        }
    }
}
