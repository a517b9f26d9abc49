// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One front end, from its connection to its end.

use std::{os::unix::net::UnixListener, sync::Arc};

use thiserror::Error;
use vhost::vhost_user::{Error as VhostError, Listener};
use vhost_user_backend::{Error as DaemonError, ShutdownHandle, VhostUserDaemon};
use vmm_sys_util::epoll::EventSet;

use crate::{backend::HmmBackend, device::Device, logging::warn_limited, ring};

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
    let (daemon, rings) = ring::Ring::collect(|| {
        VhostUserDaemon::new("vhost-user".to_owned(), backend.clone(), ring::no_memory())
    });
    let mut daemon = daemon.map_err(ConnectionError::Daemon)?;
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
