// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Front ends come one at a time; the next one waits in the socket's backlog.

use std::{
    io,
    os::fd::AsRawFd,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use parking_lot::{Condvar, Mutex};
use vhost_user_backend::ShutdownHandle;
use vmm_sys_util::event::{
    EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier,
};

use crate::{connection, device::Device, end::End, logging::warn_limited, socket::BoundListener};

/// The front end that is served now, if any. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct Connection {
    state: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Default)]
struct State {
    running: bool,
    handle: Option<ShutdownHandle>,
}

impl Connection {
    /// Ends the front end's connection and waits for its thread, at most `until`. Returns whether it has ended.
    pub(super) fn end(&self, until: Instant) -> bool {
        let (state, changed) = &*self.state;
        let mut state = state.lock();
        while state.running {
            // The handle comes when the connection is accepted, so it may not be there at first.
            if let Some(handle) = state.handle.take() {
                handle.shutdown();
            }
            let next_look = until.min(Instant::now() + Duration::from_millis(50));
            changed.wait_until(&mut state, next_look);
            if Instant::now() >= until {
                tracing::warn!("the front end's thread did not end in time");
                return false;
            }
        }
        true
    }

    fn start(&self) {
        *self.state.0.lock() = State {
            running: true,
            handle: None,
        };
    }

    fn accepted(&self, handle: ShutdownHandle) {
        self.state.0.lock().handle = Some(handle);
    }

    fn stop(&self) {
        *self.state.0.lock() = State::default();
        self.state.1.notify_all();
    }
}

/// Waits for front ends and gives each a thread.
pub(super) struct FrontEnds {
    device: Arc<Device>,
    listener: Arc<BoundListener>,
    connection: Connection,
    gone: EventConsumer,
    tell_gone: Arc<EventNotifier>,
    once: bool,
    end: End,
}

impl FrontEnds {
    /// Serves front ends from `listener`; if `once`, the process ends with the first of them.
    pub(super) fn new(
        device: Arc<Device>,
        listener: BoundListener,
        once: bool,
        end: End,
    ) -> io::Result<Self> {
        let (gone, tell_gone) =
            new_event_consumer_and_notifier(EventFlag::NONBLOCK | EventFlag::CLOEXEC)?;
        Ok(Self {
            device,
            listener: Arc::new(listener),
            connection: Connection::default(),
            gone,
            tell_gone: Arc::new(tell_gone),
            once,
            end,
        })
    }

    /// The front end that is served now.
    pub(super) fn connection(&self) -> Connection {
        self.connection.clone()
    }

    fn waiting(&self) -> Events {
        Events::new(&self.listener.listener, EventSet::IN)
    }

    fn accept(&self) -> io::Result<()> {
        self.connection.start();
        let (device, listener) = (Arc::clone(&self.device), Arc::clone(&self.listener));
        let (connection, tell_gone) = (self.connection.clone(), Arc::clone(&self.tell_gone));
        thread::Builder::new()
            .name("front-end".to_owned())
            .spawn(move || {
                let served = connection::serve(&device, &listener.listener, |handle| {
                    connection.accepted(handle);
                });
                if let Err(error) = served {
                    warn_limited!(%error, "a front end could not be served");
                }
                drop(listener);
                connection.stop();
                if let Err(error) = tell_gone.notify() {
                    tracing::error!(%error, "the main thread cannot be told");
                }
            })
            .map(|_| ())
    }
}

impl MutEventSubscriber for FrontEnds {
    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        let changed = if events.fd() == self.gone.as_raw_fd() {
            // There is at most one to consume, and being told is all that counts.
            let _ = self.gone.consume();
            if self.once {
                self.end.want();
                return;
            }
            ops.add(self.waiting())
        } else {
            if let Err(error) = self.accept() {
                tracing::error!(%error, "no thread can be had for a front end");
                self.end.want();
            }
            ops.remove(self.waiting())
        };
        if let Err(error) = changed {
            tracing::error!(%error, "front ends cannot be waited for");
            self.end.want();
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        let added = ops
            .add(self.waiting())
            .and_then(|()| ops.add(Events::new(&self.gone, EventSet::IN)));
        if let Err(error) = added {
            tracing::error!(%error, "front ends cannot be waited for");
            self.end.want();
        }
    }
}
