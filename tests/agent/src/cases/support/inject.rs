// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Faults of the device, on command: through the control socket of the device process, on the host.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

/// The faults of one device. All are taken away at the end.
#[derive(Debug)]
pub(in crate::cases) struct Faults {
    device: usize,
}

impl Faults {
    /// The first device.
    pub(in crate::cases) fn of_first_device() -> Result<Self> {
        let faults = Self { device: 0 };
        faults.clear()?;
        Ok(faults)
    }

    /// Adds a fault, in the words of `docs/device-control.md`.
    pub(in crate::cases) fn add(&self, fault: Value) -> Result<()> {
        self.request(&json!({ "command": "fault-add", "fault": fault }))
            .map(drop)
    }

    /// How often the faults fired so far.
    pub(in crate::cases) fn fired(&self) -> Result<u64> {
        let reply = self.request(&json!({ "command": "fault-list" }))?;
        let faults = reply["faults"]
            .as_array()
            .context("a list of faults has no faults")?;
        Ok(faults
            .iter()
            .filter_map(|fault| fault["fired"].as_u64())
            .sum())
    }

    /// Takes all faults away.
    pub(in crate::cases) fn clear(&self) -> Result<()> {
        self.request(&json!({ "command": "fault-clear" })).map(drop)
    }

    fn request(&self, request: &Value) -> Result<Value> {
        let mut stream = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
        writeln!(stream, "{}", json!([self.device, request]))?;
        let mut line = String::new();
        let read = BufReader::new(stream).read_line(&mut line)?;
        ensure!(read > 0, "nobody hands requests to the device");
        let answer: Value = serde_json::from_str(&line).context("the answer is no JSON")?;
        if let Some(error) = answer.get("error") {
            bail!("{request} did not get to the device: {error}");
        }
        let reply = answer["reply"].clone();
        match reply.get("error") {
            Some(error) => bail!("the device refused {request}: {error}"),
            None => Ok(reply),
        }
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        // The case has its result. The runner takes faults away as well, also after a crash.
        let _ = self.clear();
    }
}
