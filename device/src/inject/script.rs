// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Fault scripts: one fault a line, as JSON; empty lines and lines that start with `#` are skipped.

use std::{io, path::Path};

use thiserror::Error;

use super::{FaultError, FaultSpec, Faults};

/// What can be wrong with a script.
#[derive(Debug, Error)]
pub enum ScriptError {
    /// The file could not be read.
    #[error("Cannot read the fault script {path}: {source}")]
    Read {
        /// The file's path.
        path: String,
        /// The reason.
        source: io::Error,
    },
    /// A line is not an object with the fields of a fault.
    #[error("Line {line} of the fault script {path} is not a fault: {source}")]
    Syntax {
        /// The file's path.
        path: String,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A fault is not taken.
    #[error("Line {line} of the fault script {path} is not a fault: {source}")]
    Fault {
        /// The file's path.
        path: String,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong.
        source: FaultError,
    },
}

/// Adds every fault of the script `path` to `faults`.
///
/// # Errors
/// The file cannot be read, or the first line that is not a fault.
pub fn read_script(path: &Path, faults: &Faults) -> Result<usize, ScriptError> {
    let text = std::fs::read_to_string(path).map_err(|source| ScriptError::Read {
        path: path.display().to_string(),
        source,
    })?;
    let mut added = 0;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (at, number) = (|| path.display().to_string(), index + 1);
        let spec: FaultSpec = serde_json::from_str(line).map_err(|source| ScriptError::Syntax {
            path: at(),
            line: number,
            source,
        })?;
        faults.add(spec).map_err(|source| ScriptError::Fault {
            path: at(),
            line: number,
            source,
        })?;
        added += 1;
    }
    Ok(added)
}
