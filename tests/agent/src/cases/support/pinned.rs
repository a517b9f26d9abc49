// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Pages with extra references.

use super::memory::Memory;
use crate::cases::case::skip;
use anyhow::{Context, Result};
use rustix::fd::{FromRawFd, OwnedFd};
use rustix::pipe::{IoSliceRaw, SpliceFlags};
use std::io::{self, IoSlice};
use std::marker::PhantomData;
use std::ops::Range;

/// Pages pinned for a long time, as for DMA: as registered buffers of an io_uring.
#[derive(Debug)]
pub(in crate::cases) struct LongTermPin<'a> {
    _ring: OwnedFd,
    _memory: PhantomData<&'a Memory>,
}

impl<'a> LongTermPin<'a> {
    /// Pins pages until the value is dropped.
    pub(in crate::cases) fn new(memory: &'a Memory, pages: Range<usize>) -> Result<Self> {
        const REGISTER_BUFFERS: u32 = 0;
        /// `struct io_uring_params`; all zero is a ring with the defaults.
        const PARAMETERS: usize = 120;
        let mut parameters = [0_u8; PARAMETERS];
        // SAFETY: The kernel reads and writes one `struct io_uring_params`, which is as long as the array.
        let ring =
            unsafe { libc::syscall(libc::SYS_io_uring_setup, 1_u32, parameters.as_mut_ptr()) };
        if ring < 0 {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                Some(libc::ENOSYS | libc::EPERM) => {
                    Err(skip(format!("io_uring cannot be used here: {error}")))
                }
                _ => Err(error).context("io_uring_setup"),
            };
        }
        // SAFETY: The system call has just made this file, and nothing else has it.
        let ring = unsafe { OwnedFd::from_raw_fd(i32::try_from(ring)?) };
        let buffers = [IoSlice::new(memory.page_bytes(pages))];
        use std::os::fd::AsRawFd;
        // SAFETY: The kernel reads one `struct iovec`, of which an `IoSlice` has the layout, and pins pages that are
        // mapped for as long as `memory` is borrowed.
        let result = unsafe {
            libc::syscall(
                libc::SYS_io_uring_register,
                ring.as_raw_fd(),
                REGISTER_BUFFERS,
                buffers.as_ptr(),
                1_u32,
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error()).context("io_uring_register");
        }
        Ok(Self {
            _ring: ring,
            _memory: PhantomData,
        })
    }
}

/// Pages that a pipe refers to.
#[derive(Debug)]
pub(in crate::cases) struct PipePin<'a> {
    reader: OwnedFd,
    _writer: OwnedFd,
    length: usize,
    _memory: PhantomData<&'a Memory>,
}

impl<'a> PipePin<'a> {
    /// Puts pages, at most 16, into a pipe without copying them.
    pub(in crate::cases) fn new(memory: &'a Memory, pages: Range<usize>) -> Result<Self> {
        let (reader, writer) = rustix::pipe::pipe().context("cannot make a pipe")?;
        let bytes = memory.page_bytes(pages);
        let buffers = [IoSliceRaw::from_slice(bytes)];
        // SAFETY: The pages stay mapped for as long as `memory` is borrowed, and nothing but the case writes to them.
        let length = unsafe { rustix::pipe::vmsplice(&writer, &buffers, SpliceFlags::NONBLOCK) }
            .context("vmsplice")?;
        anyhow::ensure!(
            length == bytes.len(),
            "the pipe took {length} of {} bytes",
            bytes.len()
        );
        Ok(Self {
            reader,
            _writer: writer,
            length,
            _memory: PhantomData,
        })
    }

    /// Reads all that was put into the pipe.
    pub(in crate::cases) fn read_all(self) -> Result<Vec<u8>> {
        let mut bytes = vec![0; self.length];
        let mut read = 0;
        while read < bytes.len() {
            let length = rustix::io::read(&self.reader, &mut bytes[read..])
                .context("cannot read from the pipe")?;
            anyhow::ensure!(length > 0, "the pipe has ended after {read} bytes");
            read += length;
        }
        Ok(bytes)
    }
}
