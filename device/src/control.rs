// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The control socket: one JSON object a line in, one JSON object a line out. `docs/device-control.md` is its prose.

mod client;
mod command;
mod error;

use std::{
    collections::HashMap,
    io,
    os::fd::{AsRawFd, RawFd},
    sync::Arc,
};

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};

use self::{client::Client, command::Commands};
use crate::{
    device::Device,
    logging::{LogLevel, warn_limited},
    socket::BoundListener,
};

/// Clients at a time; more are turned away.
const MAX_CLIENTS: usize = 32;

/// The socket and its clients.
pub struct ControlServer {
    listener: BoundListener,
    clients: HashMap<RawFd, Client>,
    commands: Commands,
}

impl ControlServer {
    /// Answers on `listener`.
    ///
    /// # Errors
    /// The socket cannot be used without waiting.
    pub(crate) fn new(
        listener: BoundListener,
        device: Arc<Device>,
        level: LogLevel,
    ) -> io::Result<Self> {
        listener.listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            clients: HashMap::new(),
            commands: Commands::new(device, level),
        })
    }

    fn accept(&mut self, ops: &mut EventOps<'_>) {
        let Ok((stream, _)) = self.listener.listener.accept() else {
            // It has gone already.
            return;
        };
        if self.clients.len() >= MAX_CLIENTS || stream.set_nonblocking(true).is_err() {
            warn_limited!("a client of the control socket is turned away");
            return;
        }
        let client = Client::new(stream);
        match ops.add(client.interest()) {
            Ok(()) => {
                self.clients.insert(client.descriptor(), client);
            }
            Err(error) => warn_limited!(%error, "a client of the control socket is turned away"),
        }
    }
}

impl MutEventSubscriber for ControlServer {
    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        if events.fd() == self.listener.listener.as_raw_fd() {
            self.accept(ops);
            return;
        }
        let Some(client) = self.clients.get_mut(&events.fd()) else {
            return;
        };
        let commands = &self.commands;
        let stays =
            client.serve(|line| commands.answer(line)) && ops.modify(client.interest()).is_ok();
        if !stays && let Some(client) = self.clients.remove(&events.fd()) {
            // It is removed from the set before its descriptor closes.
            let _ = ops.remove(client.interest());
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        if let Err(error) = ops.add(Events::new(&self.listener.listener, EventSet::IN)) {
            tracing::error!(%error, "the control socket cannot be waited for");
        }
    }
}
