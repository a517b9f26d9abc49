// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a person does at QEMU's monitor while a command runs.

use super::site::{Site, script};
use super::{Outcome, RunTest};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

pub(super) const TESTS: &[RunTest] = &[RunTest::new("run/paused-at-the-monitor", paused)];

/// How long QEMU may take to answer.
const LIMIT: Duration = Duration::from_secs(60);

fn paused(site: &mut Site) -> Result<Outcome> {
    let path = site.monitor.clone();
    let command = script("echo ready; read -r nothing; echo end; exit 7");
    let ended = site.run_with(&command, move || pause_and_go_on(&path))?;
    ended.expect(hmm_vm::guest::ExitStatus::Code(7), "ready\nend\n")?;
    Ok(Outcome::Passed)
}

/// Pauses the guest, sees that it is paused, and lets it go on.
fn pause_and_go_on(path: &Path) -> Result<()> {
    let socket = UnixStream::connect(path).context("cannot connect to QEMU's monitor")?;
    socket.set_read_timeout(Some(LIMIT))?;
    let mut monitor = Monitor(BufReader::new(socket));
    monitor.execute("qmp_capabilities")?;
    monitor.execute("stop")?;
    let status = monitor.execute("query-status")?;
    if status["status"] != "paused" {
        bail!("the guest is not paused: {status}");
    }
    monitor.execute("cont")?;
    Ok(())
}

struct Monitor(BufReader<UnixStream>);

impl Monitor {
    fn execute(&mut self, command: &str) -> Result<Value> {
        let line = json!({ "execute": command }).to_string();
        writeln!(self.0.get_mut(), "{line}")?;
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line)? == 0 {
                bail!("QEMU closed its monitor before it answered {command}");
            }
            let mut value: Value = serde_json::from_str(&line)?;
            if let Some(value) = value.get_mut("return") {
                return Ok(value.take());
            }
            if let Some(error) = value.get("error") {
                bail!("{command}: {error}");
            }
        }
    }
}
