// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Host to guest.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Depth, Text};

/// One line from the host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// Runs a command; answered by [`crate::Report::ExecEnded`] or [`crate::Report::ExecFailed`].
    Exec(Exec),
    /// The command's input is complete once this many bytes of the input port have been read since boot.
    InputEnd {
        /// Bytes since boot.
        total: u64,
    },
    /// The host no longer reads this stream: the command gets a broken pipe.
    CloseOutput {
        /// Which one.
        stream: OutputStream,
    },
    /// Sends a signal to the command's process group.
    Signal {
        /// Its number on Linux x86-64.
        number: i32,
    },
    /// The host's terminal has another size.
    Resize(WindowSize),
    /// Runs the guest's cases; answered by [`crate::Report::CasesEnded`].
    Cases {
        /// Which cases: substrings of their names, all when empty.
        filter: Vec<String>,
        /// For those that would go on for any time.
        load: Load,
    },
    /// The answer to [`crate::Report::Ask`].
    Answer {
        /// The question's number.
        id: u64,
        /// The answer, or why there is none.
        answer: Result<Value, String>,
    },
    /// Takes the card out of a slot at once, and does not wait for the 5 s in which a person may press the slot's button once more.
    PowerOffSlot {
        /// The number of the slot.
        number: usize,
    },
    /// Ends the guest.
    Poweroff,
}

/// What is said about cases that do things at random and would go on for any time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// For how many minutes they go on, if not for the short time that every run can afford.
    pub minutes: Option<u32>,
    /// What their random numbers begin with, if not with another number in each run.
    pub seed: Option<u64>,
    /// How many rounds all cases do.
    #[serde(default)]
    pub depth: Depth,
    /// How many calls each thread of the ioctl fuzzer makes, if not the number that every run can afford.
    #[serde(default)]
    pub fuzz_rounds: Option<u32>,
    /// What the fuzzer's random numbers begin with, if not with another number in each run.
    #[serde(default)]
    pub fuzz_seed: Option<u64>,
    /// How often the case that kills a device's process does so, if not the number that every run can afford.
    #[serde(default)]
    pub kills: Option<u32>,
    /// Whether the driver's events are recorded meanwhile ([`crate::recording`]).
    #[serde(default)]
    pub record: bool,
}

impl Load {
    /// The environment variable by which such a case gets this as JSON.
    pub const VARIABLE: &str = "HMM_LOAD";

    /// How long the cases were asked to go on; zero if they were not.
    #[must_use]
    pub fn duration(&self) -> Duration {
        Duration::from_secs(60 * u64::from(self.minutes.unwrap_or(0)))
    }

    /// How long the kills that were asked for may take, in which the device comes back each time; zero if none were.
    #[must_use]
    pub fn time_of_kills(&self) -> Duration {
        const LIMIT: Duration = Duration::from_secs(30);
        LIMIT * self.kills.unwrap_or(0)
    }
}

/// A command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// Program and arguments.
    pub argv: Vec<Text>,
    /// The whole environment.
    pub env: Vec<(Text, Text)>,
    /// The working directory.
    pub cwd: Text,
    /// Which root folder the command sees.
    pub root: Root,
    /// A terminal of this size instead of three pipes.
    pub terminal: Option<WindowSize>,
}

/// The root folder of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Root {
    /// The host's files; what the command writes stays in the guest.
    Host,
    /// The guest's image.
    Image,
}

/// The two output streams of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// The size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    /// Height.
    pub rows: u16,
    /// Width.
    pub columns: u16,
}
