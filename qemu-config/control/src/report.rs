// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Guest to host.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Harm;

/// One line from the guest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "snake_case")]
pub enum Report {
    /// The first line: the guest is ready.
    Hello(Hello),
    /// The command is about to be started and its input may be sent: what was left of the last command's input has
    /// been read.
    ExecReady,
    /// The command does not read its input any more.
    InputClosed,
    /// The command ended and all that it wrote has been sent.
    ExecEnded {
        /// How it ended.
        status: ExitStatus,
        /// Bytes sent through the standard output port since boot.
        stdout_total: u64,
        /// Bytes sent through the standard error port since boot.
        stderr_total: u64,
    },
    /// The command could not be started.
    ExecFailed {
        /// What kind of failure.
        error: ExecError,
        /// What the system said.
        message: String,
        /// As in [`Report::ExecEnded`].
        stdout_total: u64,
        /// As in [`Report::ExecEnded`].
        stderr_total: u64,
    },
    /// The cases ended and all their KTAP has been sent.
    CasesEnded {
        /// Bytes sent through the KTAP port since boot.
        ktap_total: u64,
        /// Why the cases could not be run to their end, when that is so. Failing cases are no error here.
        error: Option<String>,
    },
    /// The guest asks the host; answered by [`crate::Request::Answer`] with the same number.
    Ask {
        /// The question's number.
        id: u64,
        /// The question.
        question: Question,
    },
}

/// What the guest is, once it is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`crate::VERSION`] of the guest's init.
    pub version: u32,
    /// `uname -r`.
    pub kernel: String,
    /// What became of the driver.
    pub module: ModuleReport,
    /// The driver's device nodes, sorted.
    pub devices: Vec<String>,
    /// Whether the command sees the host's root folder, and whether all of it can be written to in the guest.
    pub host_root: Option<HostRoot>,
}

/// How the host's root folder is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostRoot {
    /// Everything can be written to, in the guest's memory.
    Overlay,
    /// Only the scratch folders can be written to.
    Scratch,
}

/// What became of the driver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModuleReport {
    /// The plan had none.
    None,
    /// It is loaded.
    Loaded,
    /// It could not be loaded.
    Failed {
        /// What the system said.
        reason: String,
    },
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitStatus {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl ExitStatus {
    /// The code as a shell gives it: 128 and the number for a signal.
    #[must_use]
    pub fn shell_code(self) -> u8 {
        let code = match self {
            Self::Code(code) => code,
            Self::Signal(number) => 128 + number,
        };
        // Linux keeps eight bits of an exit code and has 64 signals, so that nothing is lost here.
        u8::try_from(code & 0xff).unwrap_or(u8::MAX)
    }

    /// Whether the command ended well.
    #[must_use]
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }
}

/// Why a command could not be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExecError {
    /// There is no such program.
    NotFound,
    /// It is there and cannot be executed.
    NotExecutable,
    /// Anything else: the working directory, memory.
    Other,
}

impl ExecError {
    /// The code that a shell gives.
    #[must_use]
    pub fn shell_code(self) -> u8 {
        match self {
            Self::NotFound => 127,
            Self::NotExecutable | Self::Other => 126,
        }
    }
}

/// What the guest may ask the host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "question", rename_all = "snake_case")]
pub enum Question {
    /// Sends a JSON value to the control socket of a device process and answers with its reply.
    Device {
        /// Which device, from 0, in the order of the machine.
        index: usize,
        /// The value.
        request: Value,
    },
    /// Takes a device out, as a person pulls a card after pressing its button. The answer comes at once; the guest sees
    /// what follows.
    Unplug {
        /// Which device, from 0, in the order of the machine.
        index: usize,
    },
    /// Does harm to the process of a device, which is started again when it fails. The answer comes when the harm is done;
    /// the guest sees what follows.
    Harm {
        /// Which device, from 0, in the order of the machine.
        index: usize,
        /// What is done, and what follows.
        harm: Harm,
    },
    /// Has a device come back that is out of the guest since a [`Harm`] with [`crate::Comeback::OnRequest`]. If it is not out yet,
    /// it comes back as soon as it is.
    ComeBack {
        /// Which device, from 0, in the order of the machine.
        index: usize,
    },
    /// Stops the guest's processors for a moment, and its devices with them, and lets them go on. The answer comes then.
    StopGuest,
    /// The guest is going to power off without being asked to.
    PowerOffAhead,
    /// The guest is going to reboot, which ends it otherwise.
    RebootAhead,
}
