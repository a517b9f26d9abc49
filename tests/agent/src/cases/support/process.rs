// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Processes that a case starts.

use anyhow::{Context, Error, Result, bail, ensure};
use hmm_uapi::client::Process;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitOptions, WaitStatus, kill_process, waitid, waitpid,
};
use std::io::Write;

/// A child of the case. It is killed and buried if the case forgets it.
#[derive(Debug)]
pub(in crate::cases) struct Child {
    pid: Option<Pid>,
}

/// Forks. The child runs `body` and ends; what it reports is what [`Child::wait`] says.
///
/// The process has one thread when a case calls this, or its other threads hold no lock that `body` needs.
pub(in crate::cases) fn fork(body: impl FnOnce() -> Result<()>) -> Result<Child> {
    // SAFETY: The child goes on with its own copy of everything, and leaves by `_exit`.
    match unsafe { libc::fork() } {
        -1 => Err(std::io::Error::last_os_error()).context("cannot fork"),
        0 => {
            let code = match std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)) {
                Ok(Ok(())) => 0,
                Ok(Err(error)) => {
                    report(&error);
                    1
                }
                Err(_) => 1,
            };
            // SAFETY: No destructor of the parent's may run in the child.
            unsafe { libc::_exit(code) }
        }
        pid => Ok(Child {
            pid: Pid::from_raw(pid),
        }),
    }
}

/// Reports why a child fails, in one write, so that the lines of several children do not mix.
pub(in crate::cases) fn report(error: &Error) {
    let text = format!("child: {error:#}\n");
    // The exit code tells the failure also without the text.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

impl Child {
    fn pid(&self) -> Result<Pid> {
        self.pid.context("the child has been waited for")
    }

    /// The child's process id.
    pub(in crate::cases) fn id(&self) -> Result<i32> {
        Ok(self.pid()?.as_raw_pid())
    }

    /// The child, to ask the device about.
    pub(in crate::cases) fn process(&self) -> Result<Process> {
        Process::from_id(self.id()?).context("a process id is positive")
    }

    /// Waits for the end of the child; an error unless its body succeeded.
    pub(in crate::cases) fn wait(mut self) -> Result<()> {
        let status = self.bury()?;
        match status.exit_status() {
            Some(0) => Ok(()),
            Some(code) => bail!("the child failed with code {code}"),
            None => bail!(
                "the child was ended by signal {:?}",
                status.terminating_signal()
            ),
        }
    }

    /// Waits for the end of the child, which must be by this signal.
    pub(in crate::cases) fn wait_for_signal(mut self, signal: Signal) -> Result<()> {
        let status = self.bury()?;
        ensure!(
            status.terminating_signal() == Some(signal.as_raw()),
            "expected the end by {signal:?}, found {status:?}"
        );
        Ok(())
    }

    /// Sends a signal.
    pub(in crate::cases) fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(self.pid()?, signal).context("cannot send a signal to the child")
    }

    /// Whether the child has ended. It has yet to be waited for.
    pub(in crate::cases) fn has_ended(&self) -> Result<bool> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let status =
            waitid(WaitId::Pid(self.pid()?), options).context("cannot look at the child")?;
        Ok(status.is_some())
    }

    fn bury(&mut self) -> Result<WaitStatus> {
        let pid = self.pid()?;
        let (_, status) = waitpid(Some(pid), WaitOptions::empty())
            .context("cannot wait for the child")?
            .context("the child has no status")?;
        self.pid = None;
        Ok(status)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.signal(Signal::KILL).is_ok() {
            // A destructor cannot report an error.
            let _ = self.bury();
        }
    }
}
