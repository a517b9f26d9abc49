// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What can be wrong with a command.

use thiserror::Error;

use crate::{inject::FaultError, logging::LevelError, memory::MemoryError, trace::NoTraceFile};

/// Why a command was not executed.
#[derive(Debug, Error)]
pub(super) enum CommandError {
    #[error("This is not a command: {0}")]
    Syntax(serde_json::Error),
    #[error("The answer cannot be written: {0}")]
    Answer(serde_json::Error),
    #[error("The statistics cannot be written: {0}")]
    Text(#[from] std::fmt::Error),
    #[error(transparent)]
    Fault(#[from] FaultError),
    #[error("There is no fault {0}")]
    NoFault(u64),
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error(transparent)]
    Trace(#[from] NoTraceFile),
    #[error(transparent)]
    Level(#[from] LevelError),
}
