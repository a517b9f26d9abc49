// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A plain interpreter, written from the tables of the manual: it takes the fields of an encoding by itself, expands compressed
//! instructions to encodings of 4 bytes, and computes with wide numbers.

use crate::assembler as asm;

/// How the model stopped at an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    Illegal,
    Breakpoint,
    Exit,
    Misaligned,
    /// It left the memory.
    Outside,
}

/// A hart with its memory.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) x: [u64; 32],
    pub(crate) pc: u64,
    pub(crate) base: u64,
    pub(crate) bytes: Vec<u8>,
    pub(crate) retired: u64,
    pub(crate) reservation: Option<(u64, usize, u64)>,
}

fn sign(value: u64, bits: u32) -> u64 {
    (((value << (64 - bits)) as i64) >> (64 - bits)) as u64
}

impl Model {
    fn at(&self, address: u64, len: usize) -> Result<usize, Stop> {
        let offset = address.wrapping_sub(self.base);
        match offset.checked_add(len as u64) {
            Some(end) if end <= self.bytes.len() as u64 => Ok(offset as usize),
            _ => Err(Stop::Outside),
        }
    }

    fn get(&self, address: u64, len: usize) -> Result<u64, Stop> {
        let at = self.at(address, len)?;
        let value = self.bytes[at..at + len].iter().rev();
        Ok(value.fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    fn put(&mut self, address: u64, len: usize, value: u64) -> Result<(), Stop> {
        let at = self.at(address, len)?;
        for byte in 0..len {
            self.bytes[at + byte] = (value >> (8 * byte)) as u8;
        }
        Ok(())
    }

    /// Executes one instruction.
    pub(crate) fn step(&mut self) -> Result<(), Stop> {
        let low = self.get(self.pc, 2)? as u32;
        let (word, len) = match low & 3 {
            3 => (low | (self.get(self.pc + 2, 2)? as u32) << 16, 4),
            _ => (expand(low as u16).ok_or(Stop::Illegal)?, 2),
        };
        self.execute(word, len)?;
        self.x[0] = 0;
        self.retired += 1;
        Ok(())
    }

    fn execute(&mut self, word: u32, len: u64) -> Result<(), Stop> {
        let w = u64::from(word);
        let bits = |low: u32, count: u32| (w >> low) & ((1 << count) - 1);
        let (rd, rs1, rs2) = (
            bits(7, 5) as usize,
            bits(15, 5) as usize,
            bits(20, 5) as usize,
        );
        let (funct3, funct7) = (bits(12, 3), bits(25, 7));
        let (a, b) = (self.x[rs1], self.x[rs2]);
        let i = sign(bits(20, 12), 12);
        let mut next = self.pc.wrapping_add(len);
        let wide = |value: u64| i128::from(value as i64);
        match word & 0x7f {
            0x37 => self.x[rd] = sign(w & 0xffff_f000, 32),
            0x17 => self.x[rd] = self.pc.wrapping_add(sign(w & 0xffff_f000, 32)),
            0x6f => {
                let offset =
                    bits(31, 1) << 20 | bits(12, 8) << 12 | bits(20, 1) << 11 | bits(21, 10) << 1;
                self.x[rd] = next;
                next = self.pc.wrapping_add(sign(offset, 21));
            }
            0x67 if funct3 == 0 => {
                self.x[rd] = next;
                next = a.wrapping_add(i) & !1;
            }
            0x63 => {
                let taken = match funct3 {
                    0 => a == b,
                    1 => a != b,
                    4 => wide(a) < wide(b),
                    5 => wide(a) >= wide(b),
                    6 => a < b,
                    7 => a >= b,
                    _ => return Err(Stop::Illegal),
                };
                let offset =
                    bits(31, 1) << 12 | bits(7, 1) << 11 | bits(25, 6) << 5 | bits(8, 4) << 1;
                if taken {
                    next = self.pc.wrapping_add(sign(offset, 13));
                }
            }
            0x03 => {
                let address = a.wrapping_add(i);
                self.x[rd] = match funct3 {
                    0 => sign(self.get(address, 1)?, 8),
                    1 => sign(self.get(address, 2)?, 16),
                    2 => sign(self.get(address, 4)?, 32),
                    3 => self.get(address, 8)?,
                    4 => self.get(address, 1)?,
                    5 => self.get(address, 2)?,
                    6 => self.get(address, 4)?,
                    _ => return Err(Stop::Illegal),
                };
            }
            0x23 if funct3 < 4 => {
                let offset = sign(funct7 << 5 | bits(7, 5), 12);
                self.put(a.wrapping_add(offset), 1 << funct3, b)?;
            }
            0x13 => {
                let amount = i & 63;
                let kind = i >> 6 & 63;
                self.x[rd] = match (funct3, kind) {
                    (0, _) => a.wrapping_add(i),
                    (1, 0) => a << amount,
                    (2, _) => u64::from(wide(a) < wide(i)),
                    (3, _) => u64::from(a < i),
                    (4, _) => a ^ i,
                    (5, 0) => a >> amount,
                    (5, 16) => (wide(a) >> amount) as u64,
                    (6, _) => a | i,
                    (7, _) => a & i,
                    _ => return Err(Stop::Illegal),
                };
            }
            0x1b => {
                let amount = i & 31;
                let kind = i >> 5 & 127;
                let narrow = match (funct3, kind) {
                    (0, _) => a.wrapping_add(i),
                    (1, 0) => a << amount,
                    (5, 0) => (a & 0xffff_ffff) >> amount,
                    (5, 32) => sign(a & 0xffff_ffff, 32) >> amount,
                    _ => return Err(Stop::Illegal),
                };
                self.x[rd] = sign(narrow & 0xffff_ffff, 32);
            }
            0x33 => {
                let amount = b & 63;
                let unsigned = |value: u64| i128::from(value);
                self.x[rd] = match (funct7, funct3) {
                    (0, 0) => a.wrapping_add(b),
                    (0x20, 0) => a.wrapping_sub(b),
                    (0, 1) => a << amount,
                    (0, 2) => u64::from(wide(a) < wide(b)),
                    (0, 3) => u64::from(a < b),
                    (0, 4) => a ^ b,
                    (0, 5) => a >> amount,
                    (0x20, 5) => (wide(a) >> amount) as u64,
                    (0, 6) => a | b,
                    (0, 7) => a & b,
                    (1, 0) => (u128::from(a) * u128::from(b)) as u64,
                    (1, 1) => ((wide(a) * wide(b)) >> 64) as u64,
                    (1, 2) => ((wide(a) * unsigned(b)) >> 64) as u64,
                    (1, 3) => ((u128::from(a) * u128::from(b)) >> 64) as u64,
                    (1, 4) => quotient(wide(a), wide(b)),
                    (1, 5) => quotient(unsigned(a), unsigned(b)),
                    (1, 6) => remainder(wide(a), wide(b)),
                    (1, 7) => remainder(unsigned(a), unsigned(b)),
                    _ => return Err(Stop::Illegal),
                };
            }
            0x3b => {
                let amount = b & 31;
                let (sa, sb) = (
                    wide(sign(a & 0xffff_ffff, 32)),
                    wide(sign(b & 0xffff_ffff, 32)),
                );
                let (ua, ub) = (i128::from(a & 0xffff_ffff), i128::from(b & 0xffff_ffff));
                let narrow = match (funct7, funct3) {
                    (0, 0) => (sa + sb) as u64,
                    (0x20, 0) => (sa - sb) as u64,
                    (0, 1) => a << amount,
                    (0, 5) => (ua >> amount) as u64,
                    (0x20, 5) => (sa >> amount) as u64,
                    (1, 0) => (sa * sb) as u64,
                    (1, 4) => quotient(sa, sb),
                    (1, 5) => quotient(ua, ub),
                    (1, 6) => remainder(sa, sb),
                    (1, 7) => remainder(ua, ub),
                    _ => return Err(Stop::Illegal),
                };
                self.x[rd] = sign(narrow & 0xffff_ffff, 32);
            }
            0x2f if funct3 == 2 || funct3 == 3 => self.atomic(word, a, b)?,
            0x0f if funct3 == 0 => {}
            0x73 => match word {
                0x73 if self.x[17] == 93 => return Err(Stop::Exit),
                0x73 | 0x0010_0073 => return Err(Stop::Breakpoint),
                _ if funct3 == 2 && rs1 == 0 => {
                    self.x[rd] = match w >> 20 {
                        0xc00 | 0xc02 => self.retired,
                        0xc01 => 7_000_000_007,
                        _ => return Err(Stop::Illegal),
                    };
                }
                _ => return Err(Stop::Illegal),
            },
            _ => return Err(Stop::Illegal),
        }
        self.pc = next;
        Ok(())
    }

    fn atomic(&mut self, word: u32, address: u64, operand: u64) -> Result<(), Stop> {
        let (rd, rs2) = ((word >> 7 & 31) as usize, word >> 20 & 31);
        let kind = word >> 27;
        let len = 1 << (word >> 12 & 7);
        let bits = 8 * len as u32;
        if !matches!(kind, 0 | 1 | 2 | 3 | 4 | 8 | 12 | 16 | 20 | 24 | 28)
            || (kind == 2 && rs2 != 0)
        {
            return Err(Stop::Illegal);
        }
        if !address.is_multiple_of(len as u64) {
            return Err(Stop::Misaligned);
        }
        if kind == 3 {
            let matches = match self.reservation {
                Some((at, width, value)) if (at, width) == (address, len) => {
                    let same = self.get(address, len)? == value;
                    if same {
                        self.put(address, len, operand)?;
                    }
                    same
                }
                _ => false,
            };
            self.reservation = None;
            self.x[rd] = u64::from(!matches);
            return Ok(());
        }
        let before = self.get(address, len)?;
        let (a, b) = (sign(before, bits), sign(operand, bits));
        let mask = u64::MAX >> (64 - bits);
        let after = match kind {
            0 => a.wrapping_add(b),
            1 => b,
            2 => {
                self.reservation = Some((address, len, before));
                self.x[rd] = a;
                return Ok(());
            }
            4 => a ^ b,
            8 => a | b,
            12 => a & b,
            16 => (a as i64).min(b as i64) as u64,
            20 => (a as i64).max(b as i64) as u64,
            24 => (a & mask).min(b & mask),
            _ => (a & mask).max(b & mask),
        };
        self.put(address, len, after)?;
        self.x[rd] = a;
        Ok(())
    }
}

fn quotient(a: i128, b: i128) -> u64 {
    match b {
        0 => u64::MAX,
        _ => (a / b) as u64,
    }
}

fn remainder(a: i128, b: i128) -> u64 {
    match b {
        0 => a as u64,
        _ => (a % b) as u64,
    }
}

/// The instruction of 4 bytes that a compressed one stands for, by the table of the manual.
pub(crate) fn expand(half: u16) -> Option<u32> {
    let h = u32::from(half);
    let bits = |low: u32, count: u32| (h >> low) & ((1 << count) - 1);
    let signed = |value: u32, count: u32| ((value << (32 - count)) as i32) >> (32 - count);
    let (full, rs2) = (bits(7, 5), bits(2, 5));
    let (first, second) = (8 + bits(7, 3), 8 + bits(2, 3));
    let six = signed(bits(12, 1) << 5 | bits(2, 5), 6);
    let shift = (bits(12, 1) << 5 | bits(2, 5)) as i32;
    let word_offset = (bits(10, 3) << 3 | bits(6, 1) << 2 | bits(5, 1) << 6) as i32;
    let double_offset = (bits(10, 3) << 3 | bits(5, 2) << 6) as i32;
    let branch = signed(
        bits(12, 1) << 8 | bits(5, 2) << 6 | bits(2, 1) << 5 | bits(10, 2) << 3 | bits(3, 2) << 1,
        9,
    );
    Some(match (bits(0, 2), bits(13, 3)) {
        (0, 0) => {
            let amount = bits(7, 4) << 6 | bits(11, 2) << 4 | bits(5, 1) << 3 | bits(6, 1) << 2;
            match amount {
                0 => return None,
                _ => asm::addi(second, 2, amount as i32),
            }
        }
        (0, 2) => asm::i(asm::LOAD, 2, second, first, word_offset),
        (0, 3) => asm::i(asm::LOAD, 3, second, first, double_offset),
        (0, 6) => asm::s(2, first, second, word_offset),
        (0, 7) => asm::s(3, first, second, double_offset),
        (1, 0) => asm::addi(full, full, six),
        (1, 1) if full != 0 => asm::i(asm::OP_IMM_32, 0, full, full, six),
        (1, 2) => asm::addi(full, 0, six),
        (1, 3) if six == 0 => return None,
        (1, 3) if full == 2 => {
            let amount = signed(
                bits(12, 1) << 9
                    | bits(3, 2) << 7
                    | bits(5, 1) << 6
                    | bits(2, 1) << 5
                    | bits(6, 1) << 4,
                10,
            );
            asm::addi(2, 2, amount)
        }
        (1, 3) => asm::u(0x37, full, six as u32 & 0xf_ffff),
        (1, 4) => match (bits(10, 2), bits(12, 1), bits(5, 2)) {
            (0, ..) => asm::i(asm::OP_IMM, 5, first, first, shift),
            (1, ..) => asm::i(asm::OP_IMM, 5, first, first, shift | 1 << 10),
            (2, ..) => asm::i(asm::OP_IMM, 7, first, first, six),
            (_, 0, 0) => asm::r(asm::OP, 0, 0x20, first, first, second),
            (_, 0, 1) => asm::r(asm::OP, 4, 0, first, first, second),
            (_, 0, 2) => asm::r(asm::OP, 6, 0, first, first, second),
            (_, 0, _) => asm::r(asm::OP, 7, 0, first, first, second),
            (_, _, 0) => asm::r(asm::OP_32, 0, 0x20, first, first, second),
            (_, _, 1) => asm::r(asm::OP_32, 0, 0, first, first, second),
            _ => return None,
        },
        (1, 5) => {
            let offset = bits(12, 1) << 11
                | bits(8, 1) << 10
                | bits(9, 2) << 8
                | bits(6, 1) << 7
                | bits(7, 1) << 6
                | bits(2, 1) << 5
                | bits(11, 1) << 4
                | bits(3, 3) << 1;
            asm::j(0, signed(offset, 12))
        }
        (1, 6) => asm::b(0, first, 0, branch),
        (1, 7) => asm::b(1, first, 0, branch),
        (2, 0) => asm::i(asm::OP_IMM, 1, full, full, shift),
        (2, 2) if full != 0 => {
            let offset = bits(2, 2) << 6 | bits(12, 1) << 5 | bits(4, 3) << 2;
            asm::i(asm::LOAD, 2, full, 2, offset as i32)
        }
        (2, 3) if full != 0 => {
            let offset = bits(2, 3) << 6 | bits(12, 1) << 5 | bits(5, 2) << 3;
            asm::i(asm::LOAD, 3, full, 2, offset as i32)
        }
        (2, 4) => match (bits(12, 1), full, rs2) {
            (0, 0, 0) => return None,
            (0, _, 0) => asm::i(0x67, 0, 0, full, 0),
            (0, ..) => asm::r(asm::OP, 0, 0, full, 0, rs2),
            (_, 0, 0) => asm::EBREAK,
            (_, _, 0) => asm::i(0x67, 0, 1, full, 0),
            _ => asm::r(asm::OP, 0, 0, full, full, rs2),
        },
        (2, 6) => asm::s(2, 2, rs2, (bits(7, 2) << 6 | bits(9, 4) << 2) as i32),
        (2, 7) => asm::s(3, 2, rs2, (bits(7, 3) << 6 | bits(10, 3) << 3) as i32),
        _ => return None,
    })
}
