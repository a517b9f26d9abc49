// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! SIGTERM and SIGINT end the process.

use std::{io, io::Read, os::unix::net::UnixStream};

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    low_level::pipe,
};

use super::End;

/// A socket that becomes readable when a signal comes.
pub(super) struct Signals {
    receiver: UnixStream,
    end: End,
}

impl Signals {
    pub(super) fn new(end: End) -> io::Result<Self> {
        let (receiver, sender) = UnixStream::pair()?;
        receiver.set_nonblocking(true)?;
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
