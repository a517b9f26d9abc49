// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The state of a hart, and how long it runs.

use crate::decode::is_compressed;
use crate::execute::execute;
use crate::{Decoder, Memory, Width};

/// A hart whose program counter gets here has returned from its function.
pub const RETURN_ADDRESS: u64 = 0xffff_ffff_ffff_f000;

/// Registers that a caller sets or reads, by their names in the calling convention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)] // The names are those of the RISC-V calling convention.
pub enum Register {
    Ra = 1,
    Sp = 2,
    Gp = 3,
    Tp = 4,
    A0 = 10,
    A1 = 11,
    A2 = 12,
    A3 = 13,
    A4 = 14,
    A5 = 15,
    A6 = 16,
    A7 = 17,
}

/// What an access that is not aligned wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// LR.
    LoadReserved,
    /// SC.
    StoreConditional,
    /// An AMO.
    Amo,
}

/// How a program ends on a hart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It returned, or called exit; the value of `a0`.
    Exit(u64),
    /// It came to an instruction that a hart does not have: the word (or half-word).
    IllegalInstruction(u32),
    /// It came to an EBREAK, or to an ECALL that is not exit.
    Breakpoint,
    /// It wanted an atomic access to an address that is not a multiple of the access's width.
    Misaligned(u64, Access),
}

/// Why a hart stopped running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause<Miss> {
    /// It executed as many instructions as it was allowed to.
    Budget,
    /// An access missed. The program counter is that of its instruction, which has had no effect.
    Miss(Miss),
    /// The program ended. The program counter is that of the instruction which ended it.
    End(End),
}

/// What LR remembers for SC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reservation {
    pub(crate) address: u64,
    pub(crate) width: Width,
    pub(crate) value: u64,
}

/// A hart. SC succeeds where memory has the value that LR saw, whatever happened to it in between.
#[derive(Clone, Debug)]
pub struct Hart {
    /// `x0` to `x31`, the sink for `x0`, and what makes every index of 6 bits valid.
    pub(crate) registers: [u64; 64],
    pub(crate) program_counter: u64,
    pub(crate) retired: u64,
    pub(crate) reservation: Option<Reservation>,
}

impl Hart {
    /// A hart that begins at `entry`, with all registers 0 but `ra`, which is [`RETURN_ADDRESS`].
    pub fn new(entry: u64) -> Self {
        let mut hart = Self {
            registers: [0; 64],
            program_counter: entry & !1,
            retired: 0,
            reservation: None,
        };
        hart.set(Register::Ra, RETURN_ADDRESS);
        hart
    }

    /// The same hart, with the same registers, that goes on at `address`.
    pub fn at(mut self, address: u64) -> Self {
        self.program_counter = address & !1;
        self
    }

    /// Sets a register.
    pub fn set(&mut self, register: Register, value: u64) {
        self.registers[register as usize] = value;
    }

    /// The value of a register.
    pub fn get(&self, register: Register) -> u64 {
        self.registers[register as usize]
    }

    /// The values of `x0` to `x31`.
    pub fn registers(&self) -> &[u64] {
        &self.registers[..32]
    }

    /// The address of the next instruction, or of the one that missed or ended the program.
    pub fn program_counter(&self) -> u64 {
        self.program_counter
    }

    /// Instructions that the hart executed.
    pub fn retired(&self) -> u64 {
        self.retired
    }

    /// Executes at most `budget` instructions. A hart that has ended ends again in the same way.
    pub fn run<M: Memory>(
        &mut self,
        memory: &mut M,
        decoder: &mut Decoder,
        budget: u64,
    ) -> Pause<M::Miss> {
        for _ in 0..budget {
            if let Err(pause) = self.step(memory, decoder) {
                return pause;
            }
        }
        Pause::Budget
    }

    /// Executes one instruction.
    #[inline]
    fn step<M: Memory>(
        &mut self,
        memory: &mut M,
        decoder: &mut Decoder,
    ) -> Result<(), Pause<M::Miss>> {
        let at = self.program_counter;
        if at == RETURN_ADDRESS {
            return Err(Pause::End(End::Exit(self.get(Register::A0))));
        }
        let mut word = memory.fetch(at).map_err(Pause::Miss)?;
        if at & 0xfff == 0xffe && !is_compressed(word) {
            // The other half is in the next page.
            let half = memory.fetch(at.wrapping_add(2)).map_err(Pause::Miss)?;
            word = word & 0xffff | half << 16;
        }
        let instruction = decoder.decode(word);
        self.program_counter = execute(self, memory, instruction, word)?;
        self.retired = self.retired.wrapping_add(1);
        Ok(())
    }
}
