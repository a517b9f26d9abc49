// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! SIGTERM and SIGINT end the process in order. SIGBUS ends it at once: a file that is mapped is shorter than it was.

use std::{io, io::Read, os::unix::net::UnixStream};

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use signal_hook::{
    consts::{SIGBUS, SIGINT, SIGTERM},
    low_level::{self, pipe},
};

use crate::end::{EXIT_INTERNAL, End};

/// What is said about a SIGBUS. It comes when a file behind a mapping has shrunk or its file system is full.
const BUS_ERROR: &str = "vhost-user-hmm: memory is gone: a file behind the guest's or the device's memory was truncated, \
                         or its file system is full. Seal memfds against shrinking; use --prefault for device memory.\n";

/// A socket that becomes readable when a signal comes.
pub(super) struct Signals {
    receiver: UnixStream,
    end: End,
}

impl Signals {
    pub(super) fn new(end: End) -> io::Result<Self> {
        let (receiver, sender) = UnixStream::pair()?;
        receiver.set_nonblocking(true)?;
        // SAFETY: the action writes to a descriptor and ends the process, which signal handlers may do.
        unsafe {
            low_level::register(SIGBUS, || {
                libc::write(2, BUS_ERROR.as_ptr().cast(), BUS_ERROR.len());
                libc::_exit(EXIT_INTERNAL)
            })
        }?;
        for signal in [SIGTERM, SIGINT] {
            pipe::register(signal, sender.try_clone()?)?;
        }
        Ok(Self { receiver, end })
    }
}

impl MutEventSubscriber for Signals {
    fn process(&mut self, _events: Events, _ops: &mut EventOps<'_>) {
        let mut buffer = [0; 64];
        if matches!((&self.receiver).read(&mut buffer), Ok(count) if count > 0) {
            self.end.want();
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        if let Err(error) = ops.add(Events::new(&self.receiver, EventSet::IN)) {
            tracing::error!(%error, "signals cannot be waited for");
            self.end.want();
        }
    }
}
