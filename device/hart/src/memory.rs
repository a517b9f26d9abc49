// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a hart runs on.

use std::sync::atomic::{Ordering, fence};

/// How many bytes an access has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Width {
    /// 1 byte.
    Byte,
    /// 2 bytes.
    Half,
    /// 4 bytes.
    Word,
    /// 8 bytes.
    Double,
}

impl Width {
    /// Bytes of the access.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Byte => 1,
            Self::Half => 2,
            Self::Word => 4,
            Self::Double => 8,
        }
    }

    /// Whether `address` is a multiple of the width.
    pub const fn is_aligned(self, address: u64) -> bool {
        address & (self.bytes() - 1) == 0
    }

    /// The low bits of `value` that the access has, the others zero.
    pub const fn truncate(self, value: u64) -> u64 {
        match self {
            Self::Byte => value & 0xff,
            Self::Half => value & 0xffff,
            Self::Word => value & 0xffff_ffff,
            Self::Double => value,
        }
    }

    /// `value` with the sign of the width's highest bit.
    pub const fn sign_extend(self, value: u64) -> u64 {
        let unused = 64 - 8 * self.bytes() as u32;
        ((value << unused).cast_signed() >> unused).cast_unsigned()
    }
}

/// What an atomic memory operation does with the value in memory and its operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Amo {
    /// Replace.
    Swap,
    /// Add, wrapping.
    Add,
    /// Exclusive or.
    Xor,
    /// And.
    And,
    /// Or.
    Or,
    /// The smaller one, signed.
    Min,
    /// The greater one, signed.
    Max,
    /// The smaller one, unsigned.
    MinUnsigned,
    /// The greater one, unsigned.
    MaxUnsigned,
}

/// The memory of a hart. Addresses are bytes; values have the low bits that the width names, and the others are zero.
///
/// A method that returns a miss has changed nothing. Aligned accesses happen as one, loads acquire, stores release, and
/// the atomic operations are sequentially consistent: that is at least as strong as what RISC-V asks for.
pub trait Memory {
    /// Why an access was not done.
    type Miss;

    /// The 4 bytes at `address`, which is a multiple of 2. Where only 2 of them are in the page of 4096 bytes that `address`
    /// is in, the low 2; the others are zero then.
    ///
    /// # Errors
    /// The miss; the hart fetches again when it runs next.
    fn fetch(&mut self, address: u64) -> Result<u32, Self::Miss>;

    /// Loads. The address may have any alignment; a load that is not aligned may see a part of a store.
    ///
    /// # Errors
    /// The miss.
    fn load(&mut self, address: u64, width: Width) -> Result<u64, Self::Miss>;

    /// Stores. The address may have any alignment; a store that is not aligned may be seen in parts, but none of it happens where a
    /// part misses.
    ///
    /// # Errors
    /// The miss.
    fn store(&mut self, address: u64, width: Width, value: u64) -> Result<(), Self::Miss>;

    /// An atomic read-modify-write of an aligned [`Width::Word`] or [`Width::Double`]; the value before.
    ///
    /// # Errors
    /// The miss.
    fn amo(
        &mut self,
        address: u64,
        width: Width,
        amo: Amo,
        operand: u64,
    ) -> Result<u64, Self::Miss>;

    /// The load of LR, aligned, [`Width::Word`] or [`Width::Double`]. It may miss where an atomic access would.
    ///
    /// # Errors
    /// The miss.
    fn load_reserved(&mut self, address: u64, width: Width) -> Result<u64, Self::Miss>;

    /// The store of SC, aligned: atomically replaces `expected` by `new`, and says whether `expected` was there.
    ///
    /// # Errors
    /// The miss.
    fn compare_exchange(
        &mut self,
        address: u64,
        width: Width,
        expected: u64,
        new: u64,
    ) -> Result<bool, Self::Miss>;

    /// What `rdtime` reads: nanoseconds since some moment, the same for all harts of a program.
    fn time(&self) -> u64;

    /// Orders all accesses before it before all accesses after it.
    fn fence(&mut self) {
        fence(Ordering::SeqCst);
    }
}
