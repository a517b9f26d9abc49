// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Records a command in a guest: what `--report FILE` does.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use hmm_report::recording::Recording;
use hmm_report::summary::Summary;
use hmm_vm::guest::{BootSpec, Command, Guest};
use serde_json::Value;
use tempfile::TempDir;

use super::{device_trace, write};

/// Where the recording is in the guest. What a command writes there is discarded with the guest.
const RECORDING: &str = "/tmp/hmm-recording.txt";
/// What fetches it.
pub(crate) const READER: &str = "cat";
/// So many events are kept where a run may take hours.
const EVENTS: usize = hmm_control::recording::EVENTS;
/// The device's own file.
const TRACE: &str = "device.json";

/// A command that is to be recorded.
pub(crate) struct Collection {
    output: PathBuf,
    trace: DeviceTrace,
}

/// The trace that the first device of a guest writes.
#[derive(Debug)]
pub(crate) struct DeviceTrace(TempDir);

impl DeviceTrace {
    /// Has the first device write one.
    pub(crate) fn attach(spec: &mut BootSpec) -> Result<Self> {
        let folder = TempDir::new().context("cannot make a folder for the device's trace")?;
        if let Some(device) = spec.devices.first_mut() {
            ensure!(
                !device.args.iter().any(|argument| argument == "--trace"),
                "the device has a --trace already, and the report needs its own"
            );
            let trace = folder.path().join(TRACE).into_os_string();
            device.args.extend(["--trace".into(), trace]);
        }
        Ok(Self(folder))
    }

    /// What it wrote. It is complete when the guest is off.
    pub(crate) fn read(&self) -> Result<Vec<Value>> {
        let text = fs::read(self.0.path().join(TRACE)).context("the device wrote no trace")?;
        device_trace(&text).context("the device's trace cannot be read")
    }
}

/// The words that record the command which follows them, and what is kept of it is small enough for a browser.
pub(crate) fn recorder() -> Vec<String> {
    let most = EVENTS.to_string();
    let words = [
        "hmmctl", "record", "--events", &most, "--output", RECORDING, "--",
    ];
    words.map(str::to_owned).to_vec()
}

/// The recording, which `reader` prints in the guest.
pub(crate) fn fetch(guest: &mut Guest, reader: &Command) -> Result<Recording> {
    let read = guest.output(reader)?;
    ensure!(
        read.end.shell_code() == 0,
        "there is no recording in the guest: {}",
        String::from_utf8_lossy(&read.stderr)
    );
    Ok(Recording::read(
        &String::from_utf8_lossy(&read.stdout),
        None,
    )?)
}

/// What [`fetch`] runs in a guest whose image has no other programs, for the recording of [`recorder`], or of the guest's
/// init itself.
pub(crate) fn own_reader(is_of_init: bool) -> Command {
    let other = (!is_of_init).then_some(RECORDING);
    Command::new(
        ["/init", hmm_control::recording::ARGUMENT]
            .into_iter()
            .chain(other),
    )
}

/// What [`fetch`] runs beside `command`, which sees the host's files or has [`READER`].
pub(crate) fn reader_like(command: &Command) -> Command {
    Command {
        argv: [READER, RECORDING].map(OsString::from).to_vec(),
        terminal: None,
        ..command.clone()
    }
}

impl Collection {
    /// Has the device write a trace. The picture goes to `output`.
    pub(crate) fn begin(output: &Path, spec: &mut BootSpec) -> Result<Self> {
        // Found out before the guest runs for hours.
        fs::write(output, "").with_context(|| format!("cannot write {}", output.display()))?;
        Ok(Self {
            output: output.to_owned(),
            trace: DeviceTrace::attach(spec)?,
        })
    }

    /// The command that records the command.
    pub(crate) fn wrap(command: &mut Command) {
        let recorder = ["hmmctl", "record", "--output", RECORDING, "--"];
        let recorder = recorder.map(OsString::from);
        command.argv.splice(0..0, recorder);
    }

    /// Fetches what was recorded from the guest, which powers off, and writes the picture. The summary.
    pub(crate) fn finish(self, mut guest: Guest, command: &Command) -> Result<Summary> {
        let recording = fetch(&mut guest, &reader_like(command))?;
        // The device ends its trace when it ends.
        guest.power_off()?;
        let trace = self.trace.read()?;
        write(&self.output, &recording, &trace)?;
        Ok(Summary::of(&recording))
    }
}
