// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Event descriptors that the front end handed over and still holds itself.
//!
//! Status flags belong to the open file description, which the front end shares, so `O_NONBLOCK` is never set here. A
//! read asks not to block; a write to a descriptor that could block is preceded by a look at whether it would.

use std::{
    io::{self, IoSliceMut},
    os::fd::AsFd,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{OFlags, fcntl_getfl},
    io::{Errno, ReadWriteFlags, preadv2, write},
};

/// The offset that means "no offset" to `preadv2()`.
const NO_OFFSET: u64 = u64::MAX;

/// Takes what was written to `descriptor` since the last call. Returns whether there was anything.
///
/// # Errors
/// The descriptor cannot be read: it would stay readable for ever.
pub(super) fn take(descriptor: impl AsFd) -> io::Result<bool> {
    let mut counter = [0; 8];
    let mut buffers = [IoSliceMut::new(&mut counter)];
    match preadv2(descriptor, &mut buffers, NO_OFFSET, ReadWriteFlags::NOWAIT) {
        Ok(0) => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
        Ok(_) => Ok(true),
        Err(Errno::AGAIN | Errno::INTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Whether a write to `descriptor` may block.
///
/// # Errors
/// It is no descriptor that can be asked.
pub(super) fn may_block(descriptor: impl AsFd) -> io::Result<bool> {
    Ok(!fcntl_getfl(descriptor)?.contains(OFlags::NONBLOCK))
}

/// Signals `descriptor`, which may block if `may_block`. One that is full has been signalled already.
///
/// # Errors
/// The system's reason.
pub(super) fn signal(descriptor: impl AsFd, may_block: bool) -> io::Result<()> {
    if may_block {
        let mut asked = [PollFd::new(&descriptor, PollFlags::OUT)];
        poll(&mut asked, Some(&Timespec::default()))?;
        if !asked[0].revents().contains(PollFlags::OUT) {
            return Ok(());
        }
    }
    match write(descriptor, &1u64.to_ne_bytes()) {
        Ok(_) | Err(Errno::AGAIN) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::{
        event::{EventfdFlags, eventfd},
        io::{read, write},
        pipe::pipe,
    };

    use super::{may_block, signal, take};

    #[test]
    fn a_blocking_eventfd_is_read_and_written_without_blocking() {
        let descriptor = eventfd(0, EventfdFlags::empty()).expect("an eventfd");
        assert!(may_block(&descriptor).expect("flags"));
        assert!(!take(&descriptor).expect("empty"));
        signal(&descriptor, true).expect("room");
        assert!(take(&descriptor).expect("signalled"));
        // As full as it can be: one more would block.
        write(&descriptor, &(u64::MAX - 1).to_ne_bytes()).expect("room");
        signal(&descriptor, true).expect("signalled already");
        assert!(take(&descriptor).expect("full"));
        assert!(may_block(descriptor.as_fd()).expect("flags"), "no flag set");
    }

    #[test]
    fn a_pipe_without_a_writer_is_of_no_use() {
        let (reader, writer) = pipe().expect("a pipe");
        assert!(!take(&reader).expect("nothing yet"));
        signal(&writer, true).expect("room");
        let mut bytes = [0; 8];
        assert_eq!(read(&reader, &mut bytes).expect("signalled"), 8);
        drop(writer);
        take(&reader).expect_err("readable for ever");
    }
}
