// SPDX-License-Identifier: GPL-2.0-only

//! The argument of a call.

use core::ops::Range;
use hmm_uapi::dmirror::Command;
use kernel::{
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    uaccess::{
        UserPtr,
        UserSlice, //
    }, //
};
use zerocopy::{
    FromZeros,
    IntoBytes, //
};

/// A call's argument as it was read once, and where it came from.
pub(super) struct Argument {
    command: Command,
    range: Range<usize>,
    pointer: UserPtr,
}

/// What a call did.
#[derive(Clone, Copy, Default)]
pub(super) struct Outcome {
    /// Pages that it dealt with.
    pub(super) pages: usize,
    /// Device page faults.
    pub(super) faults: u64,
}

impl Argument {
    /// Reads the argument of a call.
    ///
    /// # Errors
    ///
    /// `EFAULT` it cannot be read, `EINVAL` the address is not page aligned, or the range is empty or
    /// wraps.
    pub(super) fn read(argument: usize) -> Result<Self> {
        let pointer = UserPtr::from_addr(argument);
        let mut command = Command::new_zeroed();
        UserSlice::new(pointer, size_of::<Command>())
            .reader()
            .read_slice(command.as_mut_bytes())?;
        let range = range_of(&command).ok_or(EINVAL)?;
        Ok(Self {
            command,
            range,
            pointer,
        })
    }

    /// The addresses that it is about: page aligned, and not empty.
    pub(super) fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// The field `pages`, which FLAGS takes its flags from.
    pub(super) fn pages_field(&self) -> u64 {
        self.command.pages
    }

    /// The buffer of the caller, with `bytes_per_page` for each page.
    ///
    /// # Errors
    ///
    /// `EINVAL`: it is larger than any address space.
    pub(super) fn buffer(&self, bytes_per_page: usize) -> Result<UserSlice> {
        let pages = self.range.len() >> PAGE_SHIFT;
        let bytes = pages.checked_mul(bytes_per_page).ok_or(EINVAL)?;
        let start = usize::try_from(self.command.buffer)?;
        Ok(UserSlice::new(UserPtr::from_addr(start), bytes))
    }

    /// Tells the caller what was done.
    ///
    /// # Errors
    ///
    /// `EFAULT`: the argument cannot be written.
    pub(super) fn write(mut self, outcome: Outcome) -> Result {
        self.command.done = outcome.pages as u64;
        self.command.faults = outcome.faults;
        UserSlice::new(self.pointer, size_of::<Command>())
            .writer()
            .write_slice(self.command.as_bytes())
    }
}

/// The addresses of a command; `None` if there are none.
fn range_of(command: &Command) -> Option<Range<usize>> {
    let start = usize::try_from(command.address).ok()?;
    let bytes = usize::try_from(command.pages)
        .ok()?
        .checked_mul(PAGE_SIZE)?;
    let end = start.checked_add(bytes)?;
    (start % PAGE_SIZE == 0 && start < end).then_some(start..end)
}

#[kunit_tests(virtio_hmm_dmirror_command)]
mod tests {
    use super::*;

    fn range(address: u64, pages: u64) -> Option<Range<usize>> {
        range_of(&Command {
            address,
            pages,
            ..Command::default()
        })
    }

    #[test]
    fn a_range_is_aligned_and_not_empty_and_does_not_wrap() {
        let page = PAGE_SIZE as u64;
        assert!(range(page, 2) == Some(PAGE_SIZE..3 * PAGE_SIZE));
        assert!(range(page, 0).is_none());
        assert!(range(page + 1, 1).is_none());
        assert!(range(u64::MAX - page + 1, 1).is_none());
        assert!(range(page, u64::MAX / page).is_none());
        assert!(range(0, u64::MAX).is_none());
        // Shifting the number of pages would leave one page of this.
        assert!(range(0, (1 << 52) + 1).is_none());
    }
}
