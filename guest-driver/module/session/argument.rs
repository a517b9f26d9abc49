// SPDX-License-Identifier: GPL-2.0-only

//! Structures of ioctls that may grow.

use core::mem::size_of;
use kernel::{
    ioctl::_IOC_SIZE,
    prelude::*,
    uaccess::{
        UserPtr,
        UserSlice, //
    }, //
};
use zerocopy::{
    FromBytes,
    Immutable,
    IntoBytes,
    KnownLayout, //
};

/// The structure that an ioctl's argument points to, of the size that the ioctl's number tells.
pub(super) struct Argument<T> {
    value: T,
    pointer: UserPtr,
    /// Bytes of the structure that the caller has.
    len: usize,
}

impl<T: FromBytes + IntoBytes + Immutable + KnownLayout> Argument<T> {
    /// Reads the structure. What the caller has beyond it must be zero.
    ///
    /// # Errors
    ///
    /// `EINVAL` smaller than the first version of the structure, `E2BIG` larger and not zero there,
    /// `EFAULT` not readable.
    pub(super) fn new(command: u32, argument: usize) -> Result<Self> {
        Self::grown(command, argument, size_of::<T>())
    }

    /// As [`Self::new`], for a structure that had `first_bytes` bytes in its first version. What the caller does not have
    /// is zero.
    ///
    /// # Errors
    ///
    /// As [`Self::new`].
    pub(super) fn grown(command: u32, argument: usize, first_bytes: usize) -> Result<Self> {
        let size = _IOC_SIZE(command);
        if size < first_bytes {
            return Err(EINVAL);
        }
        let len = size.min(size_of::<T>());
        let pointer = UserPtr::from_addr(argument);
        let mut reader = UserSlice::new(pointer, size).reader();
        let mut value = T::new_zeroed();
        reader.read_slice(value.as_mut_bytes().get_mut(..len).ok_or(EINVAL)?)?;
        let mut tail = [0u8; 64];
        while !reader.is_empty() {
            let len = reader.len().min(tail.len());
            let part = tail.get_mut(..len).ok_or(EINVAL)?;
            reader.read_slice(part)?;
            if part.iter().any(|&byte| byte != 0) {
                return Err(E2BIG);
            }
        }
        Ok(Self {
            value,
            pointer,
            len,
        })
    }

    pub(super) fn get_mut(&mut self) -> &mut T {
        &mut self.value
    }

    /// Writes what the caller has of the structure back.
    ///
    /// # Errors
    ///
    /// `EFAULT`: not writable.
    pub(super) fn write(&self) -> Result {
        let bytes = self.value.as_bytes().get(..self.len).ok_or(EINVAL)?;
        UserSlice::new(self.pointer, self.len)
            .writer()
            .write_slice(bytes)
    }
}
