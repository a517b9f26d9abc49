// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Starting a command in its root folder, working directory and PID namespace.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

use anyhow::{Context, Result, anyhow};
use hmm_control::{Exec, ExecError, Root, Text};
use rustix::mount::mount_move;
use rustix::process::{chdir, chroot, ioctl_tiocsctty, setpgid, setsid};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::pid_namespace::{NONE, PidNamespace};
use crate::{host_root, oom};

/// A command that runs.
pub(super) struct Started {
    pub(super) child: Child,
    /// Ends what the command leaves behind. `None` on a kernel without such namespaces.
    pub(super) namespace: Option<PidNamespace>,
}

/// Why a command did not start.
pub(super) struct NotStarted {
    pub(super) error: ExecError,
    pub(super) message: String,
}

impl From<anyhow::Error> for NotStarted {
    fn from(error: anyhow::Error) -> Self {
        Self {
            error: ExecError::Other,
            message: format!("{error:#}"),
        }
    }
}

/// Starts the command.
pub(super) fn start(exec: Exec, streams: [OwnedFd; 3]) -> Result<Started, NotStarted> {
    // The root folder, the mounts and the PID namespace for children belong to this thread; the command inherits them.
    let thread = thread::spawn(move || start_here(exec, streams));
    thread
        .join()
        .unwrap_or_else(|_| Err(anyhow!("the thread that starts commands panicked").into()))
}

fn start_here(exec: Exec, streams: [OwnedFd; 3]) -> Result<Started, NotStarted> {
    let cwd = exec.cwd.clone().into_path();
    enter(exec.root, &cwd)?;
    chdir(&cwd).with_context(|| {
        format!(
            "cannot change to {}, which the guest does not have or not show; run the command from another directory, \
             outside /dev, /proc and /sys, which are the guest's own",
            cwd.display()
        )
    })?;
    let namespace = PidNamespace::enter()?;
    if namespace.is_none() {
        // Where the user sees it. A command whose standard error is closed runs as well.
        let _ = rustix::io::write(&streams[2], format!("hmm-agent: {NONE}\n").as_bytes());
    }
    Ok(Started {
        child: spawn(exec, streams)?,
        namespace,
    })
}

/// Gives the calling thread, and what it starts, a root folder of its own.
fn enter(root: Root, cwd: &Path) -> Result<()> {
    // SAFETY: the table of file descriptors stays shared: only the root and working folders and the mounts do not.
    unsafe { unshare_unsafe(UnshareFlags::FS | UnshareFlags::NEWNS) }
        .context("cannot leave the shared root folder")?;
    if root == Root::Host {
        host_root::uncover(cwd)?;
        // Moved to the top and not only entered: the kernel refuses some things to processes below a mere chroot.
        chdir(host_root::ROOT).context("the host's root folder is not there")?;
        mount_move(".", "/").context("cannot move the host's root folder to the top")?;
        chroot(".").context("cannot enter the host's root folder")?;
    }
    Ok(())
}

fn spawn(exec: Exec, streams: [OwnedFd; 3]) -> Result<Child, NotStarted> {
    let mut argv = exec.argv.into_iter().map(Text::into_os_string);
    let program = argv.next().context("there is no command")?;
    let [stdin, stdout, stderr] = streams;
    let has_terminal = exec.terminal.is_some();
    let mut command = Command::new(&program);
    command
        .args(argv)
        .env_clear()
        .envs(
            exec.env
                .into_iter()
                .map(|(name, value)| (name.into_os_string(), value.into_os_string())),
        )
        .stdin(Stdio::from(stdin))
        .stdout(Stdio::from(stdout))
        .stderr(Stdio::from(stderr));
    // SAFETY: the closure runs between fork and exec and makes system calls only: no memory is allocated and no lock
    // is taken.
    unsafe {
        command.pre_exec(move || {
            lead(has_terminal)?;
            Ok(oom::do_not_spare()?)
        });
    }
    command.spawn().map_err(|error| NotStarted {
        error: match error.kind() {
            io::ErrorKind::NotFound => ExecError::NotFound,
            io::ErrorKind::PermissionDenied | io::ErrorKind::IsADirectory => {
                ExecError::NotExecutable
            }
            _ if error.raw_os_error() == Some(libc::ENOEXEC) => ExecError::NotExecutable,
            _ => ExecError::Other,
        },
        message: format!("{}: {error}", program.to_string_lossy()),
    })
}

/// Makes the new process the leader of a group, or of a session with the terminal on its standard input.
fn lead(has_terminal: bool) -> io::Result<()> {
    if has_terminal {
        setsid()?;
        ioctl_tiocsctty(std::io::stdin().as_fd())?;
    } else {
        setpgid(None, None)?;
    }
    Ok(())
}
