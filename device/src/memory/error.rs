// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What can go wrong with device memory.

use std::io;

use thiserror::Error;

/// What can go wrong with device memory.
#[derive(Debug, Error)]
pub enum MemoryError {
    /// The file could not be opened, created or sized.
    #[error("Cannot open the memory file {path}: {source}")]
    Open {
        /// The file's path.
        path: String,
        /// The reason.
        source: io::Error,
    },
    /// Another process holds the file.
    #[error(
        "The memory file {0} is in use by another process; end that process or choose another file"
    )]
    InUse(String),
    /// The path names something that is not a regular file.
    #[error(
        "{0} is not a regular file; give the path of a file that does not exist yet, or of an earlier memory file"
    )]
    NotAFile(String),
    /// The file has another size.
    #[error(
        "The memory file {path} has {found} bytes, expected {expected} for this memory size; \
         choose the size that it was made with, or remove it"
    )]
    WrongLength {
        /// The file's path.
        path: String,
        /// Its length.
        found: u64,
        /// The length that the memory size asks for.
        expected: u64,
    },
    /// The size does not fit the huge pages.
    #[error("Device memory of {bytes} bytes is not a multiple of the huge page of {page} bytes")]
    NotHuge {
        /// The memory's size.
        bytes: u64,
        /// The page's size.
        page: u64,
    },
    /// Memory could not be made, mapped or discarded.
    #[error("Cannot {what} {bytes} bytes of device memory: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// How much was asked for.
        bytes: u64,
        /// The reason.
        source: io::Error,
    },
    /// The system's random numbers failed.
    #[error("Cannot get random bytes: {0}")]
    Random(String),
}
