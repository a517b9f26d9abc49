// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Records a command in a guest: what `--report FILE` does.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use hmm_report::recording::Recording;
use hmm_report::summary::Summary;
use hmm_vm::guest::{BootSpec, Command, Guest};
use tempfile::TempDir;

use super::{device_trace, write};

/// Where the recording is in the guest. What a command writes there is discarded with the guest.
const RECORDING: &str = "/tmp/hmm-recording.txt";
/// What fetches it.
pub(crate) const READER: &str = "cat";
/// The device's own file.
const TRACE: &str = "device.json";

/// A command that is to be recorded.
pub(crate) struct Collection {
    output: PathBuf,
    folder: TempDir,
}

impl Collection {
    /// Has the device write a trace. The picture goes to `output`.
    pub(crate) fn begin(output: &Path, spec: &mut BootSpec) -> Result<Self> {
        // Found out before the guest runs for hours.
        fs::write(output, "").with_context(|| format!("cannot write {}", output.display()))?;
        let folder = TempDir::new().context("cannot make a folder for the device's trace")?;
        if let Some(device) = spec.devices.first_mut() {
            ensure!(
                !device.args.iter().any(|argument| argument == "--trace"),
                "the device has a --trace already, and the report needs its own"
            );
            let trace = folder.path().join(TRACE).into_os_string();
            device.args.extend(["--trace".into(), trace]);
        }
        Ok(Self {
            output: output.to_owned(),
            folder,
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
        let reader = Command {
            argv: [READER, RECORDING].map(OsString::from).to_vec(),
            terminal: None,
            ..command.clone()
        };
        let read = guest.output(&reader)?;
        ensure!(
            read.end.shell_code() == 0,
            "there is no recording in the guest: {}",
            String::from_utf8_lossy(&read.stderr)
        );
        let recording = Recording::read(&String::from_utf8_lossy(&read.stdout), None)?;
        // The device ends its trace when it ends.
        guest.power_off()?;
        let trace =
            fs::read(self.folder.path().join(TRACE)).context("the device wrote no trace")?;
        let trace = device_trace(&trace).context("the device's trace cannot be read")?;
        write(&self.output, &recording, &trace)?;
        Ok(Summary::of(&recording))
    }
}
