// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A memory for tests and for fuzzing: one range of bytes for one thread, of which pages may be missing.

use crate::{Amo, Memory, Width};

/// Bytes of a page.
pub const PAGE_BYTES: usize = 4096;

/// What a page permits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Permission {
    /// Every access misses.
    Nothing,
    /// Writes and atomic accesses miss.
    Read,
    /// No access misses.
    Write,
}

/// An access that missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The first address that cannot be accessed, bytes.
    pub address: u64,
    /// Whether the access was to write.
    pub write: bool,
}

/// A range of bytes.
#[derive(Clone, Debug)]
pub struct Plain {
    base: u64,
    bytes: Vec<u8>,
    permissions: Vec<Permission>,
    time: u64,
}

impl Plain {
    /// `pages` pages of zeros from `base` on, which is a multiple of [`PAGE_BYTES`]; they permit everything.
    pub fn new(base: u64, pages: usize) -> Self {
        Self {
            base,
            bytes: vec![0; pages * PAGE_BYTES],
            permissions: vec![Permission::Write; pages],
            time: 7_000_000_007,
        }
    }

    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// All bytes.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// What the page of `address` permits; nothing outside.
    pub fn permission(&self, address: u64) -> Permission {
        self.index(address).map_or(Permission::Nothing, |index| {
            self.permissions[index / PAGE_BYTES]
        })
    }

    /// Makes the page of `address` permit this much. Nothing happens outside.
    pub fn permit(&mut self, address: u64, permission: Permission) {
        if let Some(index) = self.index(address) {
            self.permissions[index / PAGE_BYTES] = permission;
        }
    }

    /// Makes all pages permit this much.
    pub fn permit_all(&mut self, permission: Permission) {
        self.permissions.fill(permission);
    }

    /// Puts words from `address` on; those that do not fit are dropped.
    pub fn put(&mut self, address: u64, words: &[u32]) {
        for (at, word) in (address..).step_by(4).zip(words) {
            self.write(at, Width::Word, (*word).into());
        }
    }

    /// What is at `address`, whatever its page permits; 0 for bytes outside.
    pub fn read(&self, address: u64, width: Width) -> u64 {
        let byte = |at| self.index(at).map_or(0, |index| self.bytes[index]);
        let bytes = (0..width.bytes()).rev();
        bytes.fold(0, |value, offset| {
            value << 8 | u64::from(byte(address.wrapping_add(offset)))
        })
    }

    /// Writes at `address`, whatever its page permits, but nothing outside.
    pub fn write(&mut self, address: u64, width: Width, value: u64) {
        for (offset, byte) in (0..width.bytes()).zip(value.to_le_bytes()) {
            if let Some(index) = self.index(address.wrapping_add(offset)) {
                self.bytes[index] = byte;
            }
        }
    }

    fn index(&self, address: u64) -> Option<usize> {
        let offset = usize::try_from(address.checked_sub(self.base)?).ok()?;
        (offset < self.bytes.len()).then_some(offset)
    }

    fn check(&self, address: u64, len: u64, write: bool) -> Result<(), Missing> {
        let needed = match write {
            true => Permission::Write,
            false => Permission::Read,
        };
        // An access is in two pages at most.
        let last = address.wrapping_add(len - 1);
        for at in [address, last] {
            if self.permission(at) < needed {
                let address = match at == address {
                    true => at,
                    false => at & !(PAGE_BYTES as u64 - 1),
                };
                return Err(Missing { address, write });
            }
        }
        Ok(())
    }
}

impl Memory for Plain {
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
        self.time
    }
}
