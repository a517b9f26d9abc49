// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory without threads, of which pages may be missing.

use hmm_hart::{Amo, Memory, Width};
use std::collections::BTreeSet;

/// An access that missed: the address, and whether it was to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Missing(pub(crate) u64, pub(crate) bool);

/// Bytes from [`Flat::base`] on.
#[derive(Clone, Debug)]
pub(crate) struct Flat {
    pub(crate) base: u64,
    pub(crate) bytes: Vec<u8>,
    /// Numbers of the pages that miss every access.
    pub(crate) missing: BTreeSet<u64>,
    /// Numbers of the pages that miss writes and atomic accesses.
    pub(crate) read_only: BTreeSet<u64>,
}

impl Flat {
    pub(crate) fn new(base: u64, len: usize) -> Self {
        Self {
            base,
            bytes: vec![0; len],
            missing: BTreeSet::new(),
            read_only: BTreeSet::new(),
        }
    }

    /// Puts words from `address` on.
    pub(crate) fn put(&mut self, address: u64, words: &[u32]) {
        let at = (address - self.base) as usize;
        for (index, word) in words.iter().enumerate() {
            self.bytes[at + 4 * index..][..4].copy_from_slice(&word.to_le_bytes());
        }
    }

    pub(crate) fn read(&self, address: u64, width: Width) -> u64 {
        let mut value = [0; 8];
        let at = (address - self.base) as usize;
        let len = width.bytes() as usize;
        value[..len].copy_from_slice(&self.bytes[at..][..len]);
        u64::from_le_bytes(value)
    }

    pub(crate) fn write(&mut self, address: u64, width: Width, value: u64) {
        let at = (address - self.base) as usize;
        let len = width.bytes() as usize;
        self.bytes[at..][..len].copy_from_slice(&value.to_le_bytes()[..len]);
    }

    fn check(&self, address: u64, len: u64, write: bool) -> Result<(), Missing> {
        for byte in 0..len {
            let at = address.wrapping_add(byte);
            let page = at >> 12;
            let inside = at
                .checked_sub(self.base)
                .is_some_and(|offset| offset < self.bytes.len() as u64);
            if !inside || self.missing.contains(&page) || (write && self.read_only.contains(&page))
            {
                return Err(Missing(at, write));
            }
        }
        Ok(())
    }
}

impl Memory for Flat {
    type Miss = Missing;

    fn fetch(&mut self, address: u64) -> Result<u32, Missing> {
        let width = match address & 0xfff {
            0xffe => Width::Half,
            _ => Width::Word,
        };
        self.check(address, width.bytes(), false)?;
        Ok(self.read(address, width) as u32)
    }

    fn load(&mut self, address: u64, width: Width) -> Result<u64, Missing> {
        self.check(address, width.bytes(), false)?;
        Ok(self.read(address, width))
    }

    fn store(&mut self, address: u64, width: Width, value: u64) -> Result<(), Missing> {
        self.check(address, width.bytes(), true)?;
        self.write(address, width, value);
        Ok(())
    }

    fn amo(&mut self, address: u64, width: Width, amo: Amo, operand: u64) -> Result<u64, Missing> {
        self.check(address, width.bytes(), true)?;
        let before = self.read(address, width);
        let (a, b) = (width.sign_extend(before), width.sign_extend(operand));
        let after = match amo {
            Amo::Swap => b,
            Amo::Add => a.wrapping_add(b),
            Amo::Xor => a ^ b,
            Amo::And => a & b,
            Amo::Or => a | b,
            Amo::Min => a.cast_signed().min(b.cast_signed()).cast_unsigned(),
            Amo::Max => a.cast_signed().max(b.cast_signed()).cast_unsigned(),
            Amo::MinUnsigned => before.min(operand),
            Amo::MaxUnsigned => before.max(operand),
        };
        self.write(address, width, after);
        Ok(before)
    }

    fn load_reserved(&mut self, address: u64, width: Width) -> Result<u64, Missing> {
        self.check(address, width.bytes(), true)?;
        Ok(self.read(address, width))
    }

    fn compare_exchange(
        &mut self,
        address: u64,
        width: Width,
        expected: u64,
        new: u64,
    ) -> Result<bool, Missing> {
        self.check(address, width.bytes(), true)?;
        let same = self.read(address, width) == expected;
        if same {
            self.write(address, width, new);
        }
        Ok(same)
    }

    fn time(&self) -> u64 {
        7_000_000_007
    }
}
