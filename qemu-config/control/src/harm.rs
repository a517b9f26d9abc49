// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a guest may have done to the process of a device that is started again when it fails.

use serde::{Deserialize, Serialize};

/// What is done, and what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Harm {
    /// To the process that serves the device now.
    pub deed: Deed,
    /// To the next one.
    pub again: Again,
    /// How the device comes back.
    pub comeback: Comeback,
}

/// What is done to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deed {
    /// It is killed.
    Kill,
    /// It is stopped, and answers nothing any more.
    Hang,
    /// It is asked to end, and ends in order.
    Terminate,
    /// It is stopped for so short a time that it does not count as hanging.
    Pause,
}

/// Whether the process that follows is killed as well, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Again {
    /// It is left alone.
    No,
    /// It is killed before its device is plugged in.
    WhileStarting,
    /// It is killed as soon as its device is plugged in.
    OnceBack,
}

/// How a device comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Comeback {
    /// With its memory.
    Same,
    /// With other memory: another identity.
    Other,
    /// Not before [`crate::Question::ComeBack`].
    OnRequest,
}
