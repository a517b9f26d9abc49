// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What can keep the device from serving.

use std::{io, path::PathBuf};

use thiserror::Error;

use crate::{inject::ScriptError, memory::MemoryError, sandbox::SandboxError, socket::SocketError};

/// Why the process cannot serve, or could not end in order.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// Something that the system provides is missing.
    #[error("Cannot {what}: {source}")]
    System {
        /// What was attempted.
        what: &'static str,
        /// The reason.
        source: io::Error,
    },
    /// A file for output cannot be created or written.
    #[error("Cannot write {}: {source}", .path.display())]
    Write {
        /// Its path.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The fault script cannot be used.
    #[error(transparent)]
    Script(#[from] ScriptError),
    /// Device memory cannot be had.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// A socket cannot be used.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The process cannot be confined.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The event loop cannot be made, or failed.
    #[error("The event loop failed: {0}")]
    EventLoop(event_manager::Error),
}

/// An error of the system, in the course of `what`.
pub(super) fn system(what: &'static str) -> impl FnOnce(io::Error) -> DaemonError {
    move |source| DaemonError::System { what, source }
}
