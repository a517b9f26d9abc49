// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What can go wrong before a guest runs.

use std::io;
use std::path::PathBuf;

/// The result of a set-up step.
pub type Result<T, E = SetupError> = std::result::Result<T, E>;

/// Why the environment could not be made. Each message says what was expected, what was found and what to do.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A file operation failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb: "read", "rename".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file of the project or of the user does not have the expected form.
    #[error("{}: {reason}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What was expected and what was found.
        reason: String,
    },
}
