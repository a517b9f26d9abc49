// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Everything that can happen to a running guest, in one queue.

use std::io;
use std::process::ExitStatus;

use hmm_control::Report;

use super::output::Stream;
use crate::supervisor::Incident;

/// One thing that happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// The guest's init said something.
    Report(Report),
    /// The control port ended or carried something unexpected.
    ControlLost(String),
    /// QEMU said something.
    Qmp {
        /// The event's name.
        event: String,
        /// Its data.
        data: serde_json::Value,
    },
    /// A process ended.
    Ended {
        /// Which one, as it is called in messages.
        process: String,
        /// How.
        status: io::Result<ExitStatus>,
    },
    /// Something happened to a supervised device.
    Device {
        /// Which one, in the order of the machine.
        index: usize,
        /// The process that it concerns, counted from 1.
        run: u32,
        /// What.
        incident: Incident,
    },
    /// The host no longer reads this stream.
    OutputClosed(Stream),
    /// All bytes of this stream have been handed on, or it failed.
    OutputDone(Stream, io::Result<()>),
    /// The command's input ended on the host, after this many bytes since boot.
    InputEnd {
        /// The number of the command.
        command: u64,
        /// Bytes since boot.
        total: u64,
    },
    /// The host's terminal has another size.
    Resize(hmm_control::WindowSize),
    /// A signal for the tool that runs the guest.
    Interrupt(i32),
}
