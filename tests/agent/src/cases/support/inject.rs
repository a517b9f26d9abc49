// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Faults of the device, on command: through the control socket of the device process, on the host.

use super::gate::Gate;
use super::host;
use super::process::{Child, fork};
use anyhow::{Context, Result, bail};
use hmm_control::Question;
use serde_json::{Value, json};
use std::thread;
use std::time::Duration;

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

    /// The device ends the session, and keeps its contents.
    pub(in crate::cases) fn end_session(&self) -> Result<()> {
        self.request(&json!({ "command": "end-session" })).map(drop)
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

/// A process that takes all faults of the first device away after a while.
///
/// It is none of the case's threads: as long as a batch with the case's memory is not answered, the kernel maps and unmaps
/// nothing for them, and so whoever needs more memory to ask the host would wait for the answer that does not come.
#[derive(Debug)]
pub(in crate::cases) struct ClearLater {
    begin: Gate,
    child: Child,
}

impl ClearLater {
    /// The process, which waits for [`ClearLater::begin`]. Made before the case opens the device or has memory to move, since
    /// the process would have both, too.
    pub(in crate::cases) fn new(after: Duration) -> Result<Self> {
        let begin = Gate::new()?;
        let child = fork(|| {
            begin.wait()?;
            thread::sleep(after);
            Faults::of_first_device().map(drop)
        })?;
        Ok(Self { begin, child })
    }

    /// The time begins. The case asks the host nothing until [`ClearLater::wait`] returns.
    pub(in crate::cases) fn begin(&self) -> Result<()> {
        self.begin.open()
    }

    /// Waits until the faults are gone.
    pub(in crate::cases) fn wait(self) -> Result<()> {
        self.child.wait()
    }
}
