// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A command's output: from its pipe to the host's port.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::wake::Bell;

/// How long the pipe has to be silent after the command's end before what other processes may still write into it is
/// given up.
const QUIET: Duration = Duration::from_secs(1);

/// An output port, with the number of bytes sent through it since boot.
#[derive(Clone)]
pub(crate) struct OutputPort {
    file: Arc<File>,
    total: Arc<AtomicU64>,
}

impl OutputPort {
    pub(crate) fn new(file: File) -> Self {
        Self {
            file: Arc::new(file),
            total: Arc::default(),
        }
    }

    /// Bytes sent since boot.
    pub(crate) fn total(&self) -> u64 {
        self.total.load(Ordering::SeqCst)
    }
}

impl Write for OutputPort {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = (&*self.file).write(bytes)?;
        self.total.fetch_add(written as u64, Ordering::SeqCst);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The thread that carries one stream of one command.
pub(crate) struct Output {
    orders: Arc<Orders>,
    thread: JoinHandle<()>,
}

struct Orders {
    /// The command has ended.
    ended: AtomicBool,
    /// The stream is discarded.
    unwanted: AtomicBool,
    bell: Bell,
}

/// Ends a stream from another thread.
#[derive(Clone)]
pub(crate) struct Closer(Arc<Orders>);

impl Closer {
    /// Closes our end of the pipe, so that the command sees a broken one.
    pub(crate) fn close(&self) {
        self.0.unwanted.store(true, Ordering::SeqCst);
        self.0.bell.ring();
    }
}

impl Output {
    /// Carries everything from `pipe`, which must not block, to `port`.
    pub(crate) fn start(pipe: OwnedFd, port: OutputPort) -> Result<Self> {
        let orders = Arc::new(Orders {
            ended: AtomicBool::new(false),
            unwanted: AtomicBool::new(false),
            bell: Bell::new().context("cannot make an eventfd")?,
        });
        let own = Arc::clone(&orders);
        let thread = thread::Builder::new()
            .name("output".to_owned())
            .spawn(move || {
                if let Err(error) = carry(pipe, port, &own) {
                    tracing::error!("output lost: {error:#}");
                }
            })
            .context("cannot start a thread")?;
        Ok(Self { orders, thread })
    }

    pub(crate) fn closer(&self) -> Closer {
        Closer(Arc::clone(&self.orders))
    }

    /// Waits until all that the command wrote has been sent. The command has ended.
    pub(crate) fn finish(self) {
        self.orders.ended.store(true, Ordering::SeqCst);
        self.orders.bell.ring();
        if self.thread.join().is_err() {
            tracing::error!("the thread of an output panicked");
        }
    }
}

fn carry(pipe: OwnedFd, mut port: OutputPort, orders: &Orders) -> Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        if orders.unwanted.load(Ordering::SeqCst) {
            return Ok(());
        }
        match rustix::io::read(&pipe, &mut buffer) {
            // The second is what the other end of a terminal says once all its users are gone.
            Ok(0) | Err(Errno::IO) => return Ok(()),
            Ok(length) => port
                .write_all(&buffer[..length])
                .context("the port takes no more")?,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let ended = orders.ended.load(Ordering::SeqCst);
                if !wait(&pipe, orders, ended)? && ended {
                    return Ok(());
                }
            }
            Err(error) => return Err(error).context("cannot read what the command writes"),
        }
    }
}

/// Waits for bytes or for an order; `false` when neither came in time.
fn wait(pipe: &OwnedFd, orders: &Orders, ended: bool) -> Result<bool> {
    let limit = if ended {
        Some(Timespec::try_from(QUIET).context("a time")?)
    } else {
        None
    };
    let mut fds = [
        PollFd::new(pipe, PollFlags::IN),
        PollFd::new(&orders.bell, PollFlags::IN),
    ];
    let ready = match poll(&mut fds, limit.as_ref()) {
        Ok(count) => count > 0,
        Err(Errno::INTR) => true,
        Err(error) => return Err(error).context("cannot wait for output"),
    };
    orders.bell.silence();
    Ok(ready)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek};
    use std::process::{Command, Stdio};

    use rustix::pipe::{PipeFlags, pipe_with};

    use super::*;

    fn run(script: &str) -> (OutputPort, File) {
        let file =
            File::from(rustix::fs::memfd_create("port", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
        let port = OutputPort::new(file.try_clone().unwrap());
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        rustix::fs::fcntl_setfl(&read, rustix::fs::OFlags::NONBLOCK).unwrap();
        let output = Output::start(read, port.clone()).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdout(Stdio::from(write));
        let mut child = command.spawn().unwrap();
        drop(command);
        child.wait().unwrap();
        output.finish();
        (port, file)
    }

    #[test]
    fn everything_that_was_written_arrives() {
        let (port, mut file) = run("head -c 5000000 /dev/zero; echo end");
        assert_eq!(port.total(), 5_000_004);
        let mut text = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut text).unwrap();
        assert!(text.ends_with(b"\0end\n"));
    }

    #[test]
    fn a_process_left_behind_does_not_hold_the_end_up() {
        let (port, mut file) = run("sleep 1000 2>/dev/null & echo $!");
        let mut pid = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut pid).unwrap();
        assert_eq!(port.total(), pid.len() as u64);
        let pid = rustix::process::Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }

    #[test]
    fn closing_breaks_the_pipe() {
        let file =
            File::from(rustix::fs::memfd_create("port", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        rustix::fs::fcntl_setfl(&read, rustix::fs::OFlags::NONBLOCK).unwrap();
        let output = Output::start(read, OutputPort::new(file)).unwrap();
        output.closer().close();
        let mut command = Command::new("sh");
        command
            .args(["-c", "while echo y; do :; done 2>/dev/null"])
            .stdout(Stdio::from(write));
        let mut child = command.spawn().unwrap();
        drop(command);
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(child.wait().unwrap().signal(), Some(13));
        output.finish();
    }
}
