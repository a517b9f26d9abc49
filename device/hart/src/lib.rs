// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! RV64IMAC harts that run in slices on memory that may refuse any access.
//!
//! - [`Memory`]: what a hart fetches from, loads from and stores to. Each access may miss.
//! - [`Hart`]: registers, program counter and reservation; it runs until its budget is used up, an access misses or the
//!   program ends.
//! - [`Decoder`]: from a word to an [`Instruction`], with a cache.
//! - [`plain`]: a memory for tests.
//!
//! An instruction whose access misses has no effect: the hart is as it was before the instruction, and executes it again
//! when it runs next. The order of accesses is that of RVWMO where the [`Memory`] does what its methods say.
//!
//! Beyond RV64IMAC there are `rdcycle`, `rdtime` and `rdinstret`. Every other encoding is an illegal instruction.
#![forbid(unsafe_code)]

mod arithmetic;
mod decode;
mod decoder;
mod execute;
mod hart;
mod instruction;
mod memory;
pub mod plain;

pub use decoder::Decoder;
pub use hart::{Access, End, Hart, Pause, RETURN_ADDRESS, Register};
pub use instruction::{Instruction, Op};
pub use memory::{Amo, Memory, Width};
