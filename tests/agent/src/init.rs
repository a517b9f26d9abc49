// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Process 1: mounts, starts the process that serves the host, and buries the dead.

use std::process::Command;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, WaitOptions, wait};

use crate::{loopback, mounts};

/// The argument that makes this program serve the host.
pub(crate) const SERVE: &str = "--serve";

/// Runs until the serving process ends, which is an error: the host ends the guest by powering it off.
pub(crate) fn run() -> Result<()> {
    mounts::base()?;
    rustix::system::sethostname(b"hmm-guest").context("cannot set the host name")?;
    loopback::up().context("cannot bring up the loopback interface")?;
    let server = Command::new("/proc/self/exe")
        .arg(SERVE)
        .spawn()
        .context("cannot start the process that serves the host")?;
    let server = Pid::from_child(&server);
    loop {
        match wait(WaitOptions::empty()) {
            // When process 1 ends, the kernel panics and the host sees the console's last words.
            Ok(Some((pid, status))) if pid == server => {
                bail!("the process that serves the host ended: {status:?}")
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot wait for processes"),
        }
    }
}
