// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A PID namespace for one command and all that it starts.
//!
//! A command that signals every process (`kill(-1, …)`) then reaches what it has started itself, and not the process that serves the
//! host. Process 1 of the namespace is this program once more ([`run_first_process`]): it mounts the namespace's `/proc` and
//! inherits orphans. The command is a child of the serving process, as `docker exec` has it, so that its exit code and its process
//! group need no translation. Its parent is outside the namespace: `getppid()` returns 0.

use std::io::{self, Read, Write};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, pause, poll};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// The argument that makes this program the first process of a namespace.
pub(crate) const ARGUMENT: &str = "--first-of-pid-namespace";
/// What the user is told where there are none. The host looks for its beginning in the console's log.
pub(super) const NONE: &str = "no PID namespaces: this kernel was built without CONFIG_PID_NS, so a command that signals every process \
     (kill -1) ends the guest";
/// How long processes that were killed may take to end. One that waits for a device may take longer.
const DEATH_LIMIT: Timespec = Timespec {
    tv_sec: 10,
    tv_nsec: 0,
};

/// A namespace. All of its processes are killed when the value is dropped.
pub(super) struct PidNamespace {
    first: Child,
}

impl PidNamespace {
    /// Makes a namespace for the children of the calling thread, which has mounts of its own. `None` if the kernel has no such
    /// namespaces.
    pub(super) fn enter() -> Result<Option<Self>> {
        // SAFETY: the table of file descriptors stays shared: only the namespace of future children changes.
        match unsafe { unshare_unsafe(UnshareFlags::NEWPID) } {
            // CONFIG_PID_NS is off.
            Err(Errno::INVAL) => {
                tracing::warn!("{NONE}");
                return Ok(None);
            }
            result => result.context("cannot make a PID namespace")?,
        }
        // The first child of the thread is process 1 of the namespace.
        let mut first = Command::new("/proc/self/exe")
            .arg(ARGUMENT)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the first process of a PID namespace")?;
        let ready = first.stdout.take();
        let namespace = Self { first };
        // It writes one byte when /proc is there, and closes the pipe without one if it fails.
        let mut byte = [0];
        match ready.map(|mut ready| ready.read_exact(&mut byte)) {
            Some(Ok(())) => Ok(Some(namespace)),
            _ => bail!("the first process of a PID namespace failed; the console says why"),
        }
    }

    fn wait(&mut self) -> Result<()> {
        let pidfd = pidfd_open(Pid::from_child(&self.first), PidfdFlags::empty())?;
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
        loop {
            match poll(&mut fds, Some(&DEATH_LIMIT)) {
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
                Ok(0) => bail!("they were killed and do not end"),
                Ok(_) => {
                    self.first.wait()?;
                    return Ok(());
                }
            }
        }
    }
}

impl Drop for PidNamespace {
    fn drop(&mut self) {
        // The kernel ends the other processes of the namespace with its first one, and the first one after them.
        let ended = self.first.kill().map_err(Into::into);
        if let Err(error) = ended.and_then(|()| self.wait()) {
            tracing::warn!("processes that the command left behind: {error:#}");
        }
    }
}

/// Is process 1 of a namespace until the namespace ends.
pub(crate) fn run_first_process() -> Result<()> {
    mount("proc", "/proc", "proc", MountFlags::empty(), None)
        .context("cannot mount the /proc of a PID namespace")?;
    ignore_children().context("cannot ignore the end of orphans")?;
    let mut ready = io::stdout();
    ready
        .write_all(b"1")
        .and_then(|()| ready.flush())
        .context("the process that serves the host is gone")?;
    loop {
        pause();
    }
}

/// From now on the kernel buries the orphans that this process inherits.
fn ignore_children() -> io::Result<()> {
    // SAFETY: no handler is installed.
    match unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) } {
        libc::SIG_ERR => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
