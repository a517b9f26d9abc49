// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The encodings of 4 bytes, by format. The tests of the device's jobs use them, too.
#![allow(dead_code)] // Each of both uses its own part.

/// OP, OP-32 and AMO: register with register.
pub(crate) fn r(opcode: u32, funct3: u32, funct7: u32, rd: u32, rs1: u32, rs2: u32) -> u32 {
    opcode | rd << 7 | funct3 << 12 | rs1 << 15 | rs2 << 20 | funct7 << 25
}

/// Register with an immediate of 12 bits.
pub(crate) fn i(opcode: u32, funct3: u32, rd: u32, rs1: u32, immediate: i32) -> u32 {
    opcode | rd << 7 | funct3 << 12 | rs1 << 15 | (immediate as u32 & 0xfff) << 20
}

/// Stores.
pub(crate) fn s(funct3: u32, rs1: u32, rs2: u32, immediate: i32) -> u32 {
    let imm = immediate as u32;
    0x23 | (imm & 31) << 7 | funct3 << 12 | rs1 << 15 | rs2 << 20 | (imm >> 5 & 127) << 25
}

/// Branches.
pub(crate) fn b(funct3: u32, rs1: u32, rs2: u32, offset: i32) -> u32 {
    let imm = offset as u32;
    let low = (imm >> 11 & 1) << 7 | (imm >> 1 & 15) << 8;
    let high = (imm >> 5 & 63) << 25 | (imm >> 12 & 1) << 31;
    0x63 | low | funct3 << 12 | rs1 << 15 | rs2 << 20 | high
}

/// LUI (0x37) and AUIPC (0x17): the upper 20 bits.
pub(crate) fn u(opcode: u32, rd: u32, upper: u32) -> u32 {
    opcode | rd << 7 | upper << 12
}

/// JAL.
pub(crate) fn j(rd: u32, offset: i32) -> u32 {
    let imm = offset as u32;
    let field = (imm >> 12 & 255) << 12
        | (imm >> 11 & 1) << 20
        | (imm >> 1 & 1023) << 21
        | (imm >> 20 & 1) << 31;
    0x6f | rd << 7 | field
}

/// Registers by name.
pub(crate) mod x {
    pub(crate) const ZERO: u32 = 0;
    pub(crate) const RA: u32 = 1;
    pub(crate) const SP: u32 = 2;
    pub(crate) const GP: u32 = 3;
    pub(crate) const TP: u32 = 4;
    pub(crate) const T0: u32 = 5;
    pub(crate) const T1: u32 = 6;
    pub(crate) const T2: u32 = 7;
    pub(crate) const A0: u32 = 10;
    pub(crate) const A1: u32 = 11;
    pub(crate) const A2: u32 = 12;
    pub(crate) const A3: u32 = 13;
    pub(crate) const A4: u32 = 14;
    pub(crate) const A5: u32 = 15;
    pub(crate) const A7: u32 = 17;
}

pub(crate) const OP: u32 = 0x33;
pub(crate) const OP_32: u32 = 0x3b;
pub(crate) const OP_IMM: u32 = 0x13;
pub(crate) const OP_IMM_32: u32 = 0x1b;
pub(crate) const LOAD: u32 = 0x03;
pub(crate) const AMO: u32 = 0x2f;
pub(crate) const ECALL: u32 = 0x73;
pub(crate) const EBREAK: u32 = 0x0010_0073;

/// ADDI.
pub(crate) fn addi(rd: u32, rs1: u32, immediate: i32) -> u32 {
    i(OP_IMM, 0, rd, rs1, immediate)
}

/// JALR x0, 0(ra).
pub(crate) fn ret() -> u32 {
    i(0x67, 0, 0, x::RA, 0)
}
