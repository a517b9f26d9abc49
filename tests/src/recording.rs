// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Recordings of the guests that run cases: what `cargo xtask test --report` makes a picture of.
//!
//! For each such guest the folder gets `NAME.txt`, the driver's events, and `NAME.json`, the device's trace.

use anyhow::{Context, ensure};
use hmm_control::recording::{ARGUMENT, PATH};
use hmm_vm::guest::{BootSpec, Command, Guest};
use std::fs;
use std::path::PathBuf;

/// Where the tests look for the folder. Without it nothing is recorded.
pub const VARIABLE: &str = "HMM_RECORDINGS";

/// The recording of one guest.
#[derive(Clone, Debug)]
pub struct Recording {
    /// Without the extension.
    path: PathBuf,
}

impl Recording {
    /// The recording of the guest with this name, if one is wanted.
    #[must_use]
    pub fn wanted(name: &str) -> Option<Self> {
        let folder = std::env::var_os(VARIABLE)?;
        Some(Self {
            path: PathBuf::from(folder).join(name),
        })
    }

    /// Has the first device write its trace.
    pub fn attach(&self, spec: &mut BootSpec) {
        if let Some(device) = spec.devices.first_mut() {
            let trace = self.path.with_extension("json").into_os_string();
            device.args.extend(["--trace".into(), trace]);
        }
    }

    /// Fetches what was recorded in the guest.
    ///
    /// # Errors
    /// There is none, or it cannot be written.
    pub fn fetch(&self, guest: &mut Guest) -> anyhow::Result<()> {
        let output = guest.output(&Command::new(["/init", ARGUMENT]))?;
        ensure!(
            output.end.shell_code() == 0,
            "the guest has no recording in {PATH}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let path = self.path.with_extension("txt");
        fs::write(&path, &output.stdout).with_context(|| format!("cannot write {}", path.display()))
    }
}
