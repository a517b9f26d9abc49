// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One front end, from its connection to its end.

use std::{
    os::{fd::RawFd, unix::net::UnixListener},
    sync::{Arc, Weak},
};

use thiserror::Error;
use vhost::vhost_user::{Error as VhostError, Listener};
use vhost_user_backend::{
    Error as DaemonError, ShutdownHandle, VhostUserDaemon, VringEpollHandler,
};
use vmm_sys_util::epoll::EventSet;

use crate::{
    backend::HmmBackend,
    device::Device,
    logging::warn_limited,
    ring::{self, Defect, Ring},
};

/// What can go wrong with a front end.
#[derive(Debug, Error)]
pub enum ConnectionError {
    /// The library could not start.
    #[error("Cannot serve the front end: {0}")]
    Daemon(DaemonError),
    /// The socket could not be used.
    #[error("Cannot use the listening socket: {0}")]
    Socket(std::io::Error),
}

/// Accepts one front end on `listener`, which is readable, and serves it until it goes. `started` gets what ends it
/// early.
///
/// # Errors
/// See [`ConnectionError`]. A front end that goes, orderly or not, is no error.
pub fn serve(
    device: &Arc<Device>,
    listener: &UnixListener,
    started: impl FnOnce(ShutdownHandle),
) -> Result<(), ConnectionError> {
    let mut listener = Listener::from(listener.try_clone().map_err(ConnectionError::Socket)?);
    let backend = HmmBackend::new(Arc::clone(device));
    let (daemon, rings) = Ring::collect(device.queue_size(), || {
        VhostUserDaemon::new("vhost-user".to_owned(), backend.clone(), ring::no_memory())
    });
    let mut daemon = daemon.map_err(ConnectionError::Daemon)?;
    connect(device, &backend, &daemon, &rings);
    device.attach(rings);
    let served = serve_daemon(device, &backend, &mut daemon, &mut listener, started);
    // Workers still run, on rings whose front end is gone.
    device.detach();
    drop(daemon);
    // SAFETY: the daemon is gone, and the version of its library is fixed.
    unsafe { backend.close_exit_events() };
    match served {
        Ok(()) => tracing::info!("front end disconnected"),
        Err(ConnectionError::Daemon(DaemonError::HandleRequest(VhostError::Disconnected))) => {
            tracing::info!("front end disconnected");
        }
        Err(ConnectionError::Daemon(DaemonError::HandleRequest(error))) => {
            warn_limited!(%error, "front end broke the protocol and is disconnected");
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Tells the rings which workers serve them.
fn connect(
    device: &Arc<Device>,
    backend: &HmmBackend,
    daemon: &VhostUserDaemon<HmmBackend>,
    rings: &[Ring],
) {
    let workers = daemon.get_epoll_handlers();
    for (queue, ring) in (0..).zip(rings) {
        if let Some(worker) = workers.get(device.layout().thread_of(queue)) {
            ring.connect(Box::new(Link {
                queue,
                device: Arc::downgrade(device),
                worker: Arc::downgrade(worker),
                event: backend.wake_event(),
            }));
        }
    }
}

/// What a ring needs of its connection. The worker owns its rings, so they do not own it.
struct Link {
    queue: u16,
    device: Weak<Device>,
    worker: Weak<VringEpollHandler<HmmBackend>>,
    /// A number that the library takes for events that are not its own.
    event: u64,
}

impl ring::Connection for Link {
    fn stop_listening(&self, descriptor: RawFd) {
        if let Some(worker) = self.worker.upgrade() {
            // It fails if the worker does not listen to it, because the ring is stopped. The kernel ignores the event.
            let _ = worker.unregister_listener(descriptor, EventSet::IN, self.event);
        }
    }

    fn quiesce(&self) {
        if let Some(device) = self.device.upgrade() {
            device.quiesce();
        }
    }

    fn break_ring(&self, defect: Defect) {
        if let Some(device) = self.device.upgrade() {
            device.break_queue(self.queue, &defect.to_string());
        }
    }

    fn begins(&self, position: Option<u16>) {
        if let Some(device) = self.device.upgrade() {
            device.queue_begins(self.queue, position);
        }
    }

    fn started(&self) {
        if let Some(device) = self.device.upgrade() {
            device.wake(device.layout().thread_of(self.queue));
        }
    }
}

/// Serves until the front end goes. The daemon's workers still run afterwards.
fn serve_daemon(
    device: &Device,
    backend: &HmmBackend,
    daemon: &mut VhostUserDaemon<HmmBackend>,
    listener: &mut Listener,
    started: impl FnOnce(ShutdownHandle),
) -> Result<(), ConnectionError> {
    for (thread, handler) in daemon.get_epoll_handlers().iter().enumerate() {
        if let Some(waker) = device.waker(thread) {
            handler
                .register_listener(waker, EventSet::IN, backend.wake_event())
                .map_err(ConnectionError::Socket)?;
        }
    }
    daemon.start(listener).map_err(ConnectionError::Daemon)?;
    tracing::info!("front end connected");
    if let Some(handle) = daemon.shutdown_handle() {
        started(handle);
    }
    daemon.wait().map_err(ConnectionError::Daemon)
}
