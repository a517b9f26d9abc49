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
}

impl<T: FromBytes + IntoBytes + Immutable + KnownLayout> Argument<T> {
    /// Reads the structure. What the caller has beyond it must be zero.
    ///
    /// # Errors
    ///
    /// `EINVAL` smaller than the first version of the structure, `E2BIG` larger and not zero there,
    /// `EFAULT` not readable.
    pub(super) fn new(command: u32, argument: usize) -> Result<Self> {
        let size = _IOC_SIZE(command);
        if size < size_of::<T>() {
            return Err(EINVAL);
        }
        let pointer = UserPtr::from_addr(argument);
        let mut reader = UserSlice::new(pointer, size).reader();
        let mut value = T::new_zeroed();
        reader.read_slice(value.as_mut_bytes())?;
        let mut tail = [0u8; 64];
        while !reader.is_empty() {
            let len = reader.len().min(tail.len());
            let part = tail.get_mut(..len).ok_or(EINVAL)?;
            reader.read_slice(part)?;
            if part.iter().any(|&byte| byte != 0) {
                return Err(E2BIG);
            }
        }
        Ok(Self { value, pointer })
    }

    pub(super) fn get_mut(&mut self) -> &mut T {
        &mut self.value
    }

    /// Writes the structure back.
    ///
    /// # Errors
    ///
    /// `EFAULT`: not writable.
    pub(super) fn write(&self) -> Result {
        UserSlice::new(self.pointer, size_of::<T>())
            .writer()
            .write_slice(self.value.as_bytes())
    }
}
