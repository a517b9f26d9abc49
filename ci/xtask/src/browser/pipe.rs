// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A browser without a screen, and the pipes over which it takes commands: JSON, each message ended by a zero byte.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use command_fds::{CommandFdExt, FdMapping};
use serde_json::{Value, json};

/// Where the browser sees the reports.
pub(super) const FOLDER: &str = "/reports";
/// The numbers under which the browser expects its pipes.
const COMMANDS: i32 = 3;
const ANSWERS: i32 = 4;
/// No answer takes so long, on any machine.
const LIMIT: Duration = Duration::from_secs(300);
/// Of what it said, an error tells this much.
const TOLD_BYTES: usize = 2000;

/// A browser. It is ended with the value.
pub(super) struct Browser {
    child: Child,
    commands: File,
    answers: Receiver<Value>,
    log: tempfile::NamedTempFile,
    number: u64,
    /// What it told without being asked, and what has not been looked at.
    events: Vec<Value>,
}

impl Browser {
    /// Starts the browser of the packages in `root`. It sees `folder`, and no network.
    pub(super) fn start(root: &Path, folder: &Path) -> Result<Self> {
        let (theirs_in, commands) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .context("cannot make a pipe")?;
        let (answers, theirs_out) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .context("cannot make a pipe")?;
        let log = tempfile::NamedTempFile::new().context("cannot make a file")?;
        let mut command = Command::new("bwrap");
        for part in ["usr", "etc"] {
            command
                .arg("--ro-bind")
                .arg(root.join(part))
                .arg(format!("/{part}"));
        }
        for (link, target) in [
            ("/bin", "usr/bin"),
            ("/lib", "usr/lib"),
            ("/lib64", "usr/lib64"),
        ] {
            command.args(["--symlink", target, link]);
        }
        command.arg("--ro-bind").arg(folder).arg(FOLDER);
        command.args(["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]);
        command.args(["--unshare-all", "--die-with-parent", "--clearenv"]);
        command.args(["--setenv", "HOME", "/tmp", "--setenv", "LANG", "C.UTF-8"]);
        command
            .arg("--")
            .arg("/usr/lib/chromium/chromium-headless-shell");
        // Its own sandbox needs namespaces within that of bubblewrap; it shows nothing but our own reports.
        command.args(["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]);
        command.args(["--remote-debugging-pipe", "--window-size=1500,1000"]);
        command.args([
            "--force-prefers-reduced-motion",
            "--hide-scrollbars",
            "about:blank",
        ]);
        let map = |parent_fd: OwnedFd, child_fd| FdMapping {
            parent_fd,
            child_fd,
        };
        command
            .fd_mappings(vec![map(theirs_in, COMMANDS), map(theirs_out, ANSWERS)])
            .context("the pipes' numbers collide")?;
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.reopen().context("cannot open the log")?)
            .spawn()
            .context("cannot start bubblewrap with the browser")?;
        // The command holds the browser's ends of the pipes. While it does, a read does not end when the browser does.
        drop(command);
        let (sender, received) = mpsc::channel();
        thread::spawn(move || {
            let mut answers = BufReader::new(File::from(answers));
            let mut message = Vec::new();
            while let Ok(1..) = answers.read_until(0, &mut message) {
                message.pop();
                let Ok(value) = serde_json::from_slice(&message) else {
                    break;
                };
                message.clear();
                if sender.send(value).is_err() {
                    break;
                }
            }
        });
        Ok(Self {
            child,
            commands: commands.into(),
            answers: received,
            log,
            number: 0,
            events: Vec::new(),
        })
    }

    /// Has a command done, and returns its result.
    pub(super) fn call(
        &mut self,
        session: Option<&str>,
        method: &str,
        parameters: Value,
    ) -> Result<Value> {
        self.number += 1;
        let mut command = json!({ "id": self.number, "method": method, "params": parameters });
        if let Some(session) = session {
            command["sessionId"] = json!(session);
        }
        let mut message = serde_json::to_vec(&command)?;
        message.push(0);
        (self.commands.write_all(&message))
            .with_context(|| format!("the browser has ended: {}", self.said()))?;
        loop {
            let mut answer = self.receive(method)?;
            if answer["id"] == self.number {
                ensure!(answer["error"].is_null(), "{method}: {}", answer["error"]);
                return Ok(answer["result"].take());
            }
            self.events.push(answer);
        }
    }

    /// Waits until the browser tells of this.
    pub(super) fn wait_for(&mut self, event: &str) -> Result<()> {
        while !self.events.iter().any(|told| told["method"] == event) {
            let told = self.receive(event)?;
            self.events.push(told);
        }
        Ok(())
    }

    /// What it told since it was asked last.
    pub(super) fn take_events(&mut self) -> Vec<Value> {
        std::mem::take(&mut self.events)
    }

    fn receive(&self, what: &str) -> Result<Value> {
        match self.answers.recv_timeout(LIMIT) {
            Ok(message) => Ok(message),
            Err(RecvTimeoutError::Timeout) => {
                bail!(
                    "{what}: no answer within {} s: {}",
                    LIMIT.as_secs(),
                    self.said()
                )
            }
            Err(RecvTimeoutError::Disconnected) => {
                bail!("{what}: the browser has ended: {}", self.said())
            }
        }
    }

    fn said(&self) -> String {
        let said = std::fs::read(self.log.path()).unwrap_or_default();
        let first = said.len().saturating_sub(TOLD_BYTES);
        String::from_utf8_lossy(&said[first..]).into_owned()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Bubblewrap's end is that of all processes within. It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
