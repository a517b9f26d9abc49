// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What cannot be given up.

use std::{io, path::PathBuf};

use thiserror::Error;

/// Why the process is not confined.
#[derive(Debug, Error)]
pub enum SandboxError {
    /// A property of the process could not be changed.
    #[error("Cannot {what}: {source}")]
    Process {
        /// What was attempted.
        what: &'static str,
        /// The reason.
        source: rustix::io::Errno,
    },
    /// Capabilities could not be read or dropped.
    #[error("Cannot {what}: {source}")]
    Capabilities {
        /// What was attempted.
        what: &'static str,
        /// The reason.
        source: caps::errors::CapsError,
    },
    /// The Landlock rules could not be made or enforced.
    #[error("Cannot close paths: {0}")]
    Landlock(#[from] landlock::RulesetError),
    /// A folder of a rule could not be opened.
    #[error("Cannot open the folder {path}: {source}", path = .path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The reason.
        source: landlock::PathFdError,
    },
    /// There is no list for this processor.
    #[error("There is no list of system calls for this processor; use --seccomp off")]
    Architecture,
    /// The list could not be compiled.
    #[error("The list of system calls is wrong: {0}")]
    List(#[from] seccompiler::BackendError),
    /// The list could not be installed.
    #[error("Cannot install the list of system calls; --seccomp off goes without: {0}")]
    Install(seccompiler::Error),
    /// The process that removes the sockets could not be started.
    #[error(
        "Cannot start the process that removes the sockets: {0}; --landlock off --seccomp off goes without"
    )]
    Remover(io::Error),
}
