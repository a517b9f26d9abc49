// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Reads memory by the kernel, which reports an error where a task would get SIGBUS.

use crate::cases::support::pattern;
use crate::cases::support::prelude::*;
use rustix::io::Errno;
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};

/// A pipe through which the kernel reads pages.
#[derive(Debug)]
pub(super) struct Reader {
    reader: OwnedFd,
    writer: OwnedFd,
}

impl Reader {
    /// An empty pipe.
    pub(super) fn new() -> Result<Self> {
        let (reader, writer) = rustix::pipe::pipe()?;
        Ok(Self { reader, writer })
    }

    /// What is in a page; `None` if it cannot be had.
    pub(super) fn page(&self, memory: &Memory, page: usize) -> Result<Option<Vec<u8>>> {
        let start = memory.part(page..page + 1).start as *const libc::c_void;
        // SAFETY: The page is mapped. Nothing reads it here; the kernel does, and reports an error if it cannot.
        let sent = unsafe { libc::write(self.writer.as_raw_fd(), start, PAGE) };
        if sent < 0 {
            let error = std::io::Error::last_os_error();
            ensure!(
                Errno::from_io_error(&error) == Some(Errno::FAULT),
                "page {page} could not be read: {error}"
            );
            return Ok(None);
        }
        ensure!(
            sent == PAGE as isize,
            "{sent} bytes of page {page} were read"
        );
        let mut bytes = vec![0; PAGE];
        let read = rustix::io::read(&self.reader, &mut bytes)?;
        ensure!(read == PAGE, "the pipe has {read} bytes");
        Ok(Some(bytes))
    }

    /// Checks that each page has the bytes of `seed`, or, if that `may_be_lost`, cannot be had. Returns how many cannot.
    pub(super) fn check(
        &self,
        memory: &Memory,
        pages: Range<usize>,
        seed: u64,
        may_be_lost: bool,
    ) -> Result<usize> {
        let mut lost = 0;
        for page in pages {
            match self.page(memory, page)? {
                Some(bytes) => {
                    let difference = pattern::difference(&bytes, page, seed);
                    ensure!(
                        difference.is_none(),
                        "page {page} has wrong bytes: {difference:?}"
                    );
                }
                None => lost += 1,
            }
        }
        ensure!(
            lost == 0 || may_be_lost,
            "{lost} pages are lost that the device has"
        );
        Ok(lost)
    }
}
