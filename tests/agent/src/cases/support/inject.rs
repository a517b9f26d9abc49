// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Faults of the device, on command: through the control socket of the device process, on the host.

use super::host;
use anyhow::{Context, Result, bail};
use hmm_control::Question;
use serde_json::{Value, json};

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

    /// The device loses all its contents.
    pub(in crate::cases) fn renew(&self) -> Result<()> {
        self.request(&json!({ "command": "renew" })).map(drop)
    }

    fn request(&self, request: &Value) -> Result<Value> {
        let reply = host::ask(&Question::Device {
            index: self.device,
            request: request.clone(),
        })?;
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
