// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Running a command for the host.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context, Result, anyhow};
use hmm_control::{Exec, ExecError, ExitStatus, OutputStream, Report, Root, Text, WindowSize};
use rustix::fs::OFlags;
use rustix::mount::mount_move;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Pid, Signal, chdir, chroot, ioctl_tiocsctty, kill_process_group, setpgid, setsid,
};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::host_root;
use crate::input::{InputPort, Sink};
use crate::output::{Closer, Output, OutputPort};
use crate::terminal::{Terminal, resize};
use crate::{host, terminal};

/// Runs one command after the other.
pub(crate) struct Runner {
    pub(crate) stdin: InputPort,
    pub(crate) stdout: OutputPort,
    pub(crate) stderr: OutputPort,
    running: Mutex<Option<Running>>,
}

/// What other threads may do to the command that runs.
struct Running {
    group: Pid,
    stdout: Closer,
    stderr: Closer,
    terminal: Option<OwnedFd>,
}

/// The command's ends of its streams and our own.
struct Streams {
    theirs: [OwnedFd; 3],
    sink: Sink,
    stdout: OwnedFd,
    stderr: OwnedFd,
    terminal: Option<OwnedFd>,
}

/// Why a command did not start.
struct NotStarted {
    error: ExecError,
    message: String,
}

impl Runner {
    pub(crate) fn new(stdin: InputPort, stdout: OutputPort, stderr: OutputPort) -> Self {
        Self {
            stdin,
            stdout,
            stderr,
            running: Mutex::new(None),
        }
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a command to its end and tells the host about it.
    pub(crate) fn run(&self, exec: Exec) -> Result<()> {
        let outcome = match Streams::new(exec.terminal) {
            Ok(streams) => self.run_with(exec, streams)?,
            Err(error) => Err(NotStarted {
                error: ExecError::Other,
                message: format!("{error:#}"),
            }),
        };
        self.stdin.stop();
        let (stdout_total, stderr_total) = (self.stdout.total(), self.stderr.total());
        host::report(&match outcome {
            Ok(status) => Report::ExecEnded {
                status,
                stdout_total,
                stderr_total,
            },
            Err(NotStarted { error, message }) => Report::ExecFailed {
                error,
                message,
                stdout_total,
                stderr_total,
            },
        })
    }

    fn run_with(&self, exec: Exec, streams: Streams) -> Result<Result<ExitStatus, NotStarted>> {
        self.stdin.begin(streams.sink);
        host::report(&Report::ExecReady)?;
        let mut child = match start(exec, streams.theirs) {
            Ok(child) => child,
            Err(not_started) => return Ok(Err(not_started)),
        };
        let stdout = Output::start(streams.stdout, self.stdout.clone())?;
        let stderr = Output::start(streams.stderr, self.stderr.clone())?;
        *self.running() = Some(Running {
            group: Pid::from_child(&child),
            stdout: stdout.closer(),
            stderr: stderr.closer(),
            terminal: streams.terminal,
        });
        let status = child.wait();
        *self.running() = None;
        stdout.finish();
        stderr.finish();
        let status = status.context("cannot wait for the command")?;
        let ended = status
            .code()
            .map(ExitStatus::Code)
            .or_else(|| status.signal().map(ExitStatus::Signal));
        ended
            .map(Ok)
            .ok_or_else(|| anyhow!("the command ended neither by itself nor by a signal"))
    }

    /// Sends a signal to the command and its children. Without a command there is nothing to do.
    pub(crate) fn signal(&self, number: i32) {
        if let (Some(running), Some(signal)) = (&*self.running(), Signal::from_named_raw(number)) {
            // The group may have gone this moment.
            let _ = kill_process_group(running.group, signal);
        }
    }

    /// Closes our end of an output.
    pub(crate) fn close_output(&self, stream: OutputStream) {
        if let Some(running) = &*self.running() {
            match stream {
                OutputStream::Stdout => running.stdout.close(),
                OutputStream::Stderr => running.stderr.close(),
            }
        }
    }

    /// Gives the command's terminal another size.
    pub(crate) fn resize(&self, size: WindowSize) {
        if let Some(Running {
            terminal: Some(terminal),
            ..
        }) = &*self.running()
            && let Err(error) = resize(terminal, size)
        {
            tracing::warn!("{error:#}");
        }
    }
}

impl Streams {
    fn new(size: Option<WindowSize>) -> Result<Self> {
        match size {
            Some(size) => Self::terminal(size),
            None => Self::pipes(),
        }
    }

    fn pipes() -> Result<Self> {
        let make = || pipe_with(PipeFlags::CLOEXEC).context("cannot make a pipe");
        let (stdin, sink) = make()?;
        let (stdout, their_stdout) = make()?;
        let (stderr, their_stderr) = make()?;
        // Only our own ends: a program does not expect its pipes to be non-blocking.
        for ours in [&sink, &stdout, &stderr] {
            rustix::fs::fcntl_setfl(ours, OFlags::NONBLOCK)
                .context("cannot make a pipe non-blocking")?;
        }
        Ok(Self {
            theirs: [stdin, their_stdout, their_stderr],
            sink: Sink::Pipe(sink),
            stdout,
            stderr,
            terminal: None,
        })
    }

    fn terminal(size: WindowSize) -> Result<Self> {
        let terminal::Terminal { ours, theirs } = Terminal::open(size)?;
        let clone = |fd: &OwnedFd| fd.try_clone().context("cannot clone a terminal's end");
        // All output comes through the terminal; the stream for errors ends at once.
        let (stderr, _) =
            pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).context("cannot make a pipe")?;
        Ok(Self {
            theirs: [clone(&theirs)?, clone(&theirs)?, theirs],
            sink: Sink::Terminal(clone(&ours)?),
            stdout: clone(&ours)?,
            stderr,
            terminal: Some(ours),
        })
    }
}

/// Starts the command in its root folder and working directory.
fn start(exec: Exec, streams: [OwnedFd; 3]) -> Result<Child, NotStarted> {
    // A thread of its own gets a root folder of its own, and the command inherits both from it.
    let thread = thread::spawn(move || start_here(exec, streams));
    thread.join().unwrap_or_else(|_| {
        Err(NotStarted {
            error: ExecError::Other,
            message: "the thread that starts commands panicked".to_owned(),
        })
    })
}

fn start_here(exec: Exec, streams: [OwnedFd; 3]) -> Result<Child, NotStarted> {
    let cwd = exec.cwd.into_path();
    let other = |error: anyhow::Error| NotStarted {
        error: ExecError::Other,
        message: format!("{error:#}"),
    };
    enter(exec.root).map_err(other)?;
    chdir(&cwd)
        .with_context(|| format!("cannot change to {}", cwd.display()))
        .map_err(other)?;
    let mut argv = exec.argv.into_iter().map(Text::into_os_string);
    let program = argv
        .next()
        .ok_or_else(|| other(anyhow!("there is no command")))?;
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
        command.pre_exec(move || lead(has_terminal));
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

/// Gives the calling thread, and what it starts, a root folder of its own.
fn enter(root: Root) -> Result<()> {
    // SAFETY: the table of file descriptors stays shared: only the root and working folders and the mounts do not.
    unsafe { unshare_unsafe(UnshareFlags::FS | UnshareFlags::NEWNS) }
        .context("cannot leave the shared root folder")?;
    if root == Root::Host {
        // Moved to the top and not only entered: the kernel refuses some things to processes below a mere chroot.
        chdir(host_root::ROOT).context("the host's root folder is not there")?;
        mount_move(".", "/").context("cannot move the host's root folder to the top")?;
        chroot(".").context("cannot enter the host's root folder")?;
    }
    Ok(())
}
