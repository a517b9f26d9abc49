// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A command's input: from the host's port to its pipe.
//!
//! The port is read all the time, whether a command wants the bytes or not, so that the host never has to wait for
//! a command that has ended. The host says where each command's input ends, and sends the next command's input only
//! when it was told that the last one's has been read.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context, Result};
use hmm_control::Report;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, write};

use crate::host;
use crate::wake::Bell;

/// Where a command's input goes.
pub(crate) enum Sink {
    /// A pipe, whose end is closed after the last byte.
    Pipe(OwnedFd),
    /// A terminal, which gets the character that means the end.
    Terminal(OwnedFd),
}

/// The end of input on a terminal: Ctrl-D.
const END_OF_INPUT: u8 = 4;

/// The input port.
#[derive(Clone)]
pub(crate) struct InputPort(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    bell: Bell,
}

#[derive(Default)]
struct State {
    sink: Option<Arc<Sink>>,
    /// Bytes read since boot.
    read: u64,
    /// Where the current command's input ends, once the host has said it.
    end: Option<u64>,
}

impl InputPort {
    /// Reads the port from now on.
    pub(crate) fn new(port: File) -> Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                end: Some(0),
                ..State::default()
            }),
            changed: Condvar::new(),
            bell: Bell::new().context("cannot make an eventfd")?,
        });
        let own = Arc::clone(&shared);
        thread::Builder::new()
            .name("input".to_owned())
            .spawn(move || {
                if let Err(error) = own.carry(port) {
                    tracing::error!("input lost: {error:#}");
                }
            })
            .context("cannot start a thread")?;
        Ok(Self(shared))
    }

    /// Waits until the last command's input has been read, then hands what comes to `sink`.
    pub(crate) fn begin(&self, sink: Sink) {
        let mut state = self.0.lock();
        while state.end != Some(state.read) {
            state = self
                .0
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.end = None;
        state.sink = Some(Arc::new(sink));
    }

    /// The host says where the input ends.
    pub(crate) fn end_at(&self, total: u64) {
        let mut state = self.0.lock();
        state.end = Some(total);
        self.0.check_end(&mut state);
    }

    /// The command has ended: what still comes is dropped.
    pub(crate) fn stop(&self) {
        self.0.lock().sink = None;
        self.0.bell.ring();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_end(&self, state: &mut State) {
        if state.end == Some(state.read) {
            if let Some(sink) = state.sink.take()
                && let Sink::Terminal(terminal) = &*sink
            {
                // A terminal that is gone needs no end.
                let _ = write(terminal, &[END_OF_INPUT]);
            }
            self.changed.notify_all();
        }
    }

    fn carry(&self, mut port: File) -> Result<()> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let length = match port.read(&mut buffer) {
                // The host has gone, and this guest will not live long.
                Ok(0) => return Ok(()),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).context("cannot read the port"),
            };
            let sink = self.lock().sink.clone();
            if let Some(sink) = sink
                && !self.deliver(&sink, &buffer[..length])
            {
                let closed = {
                    let mut state = self.lock();
                    // Another thread may have stopped it first.
                    state.sink.take().is_some()
                };
                if closed {
                    host::report(&Report::InputClosed)?;
                }
            }
            let mut state = self.lock();
            state.read += length as u64;
            self.check_end(&mut state);
        }
    }

    /// Whether the sink took all bytes.
    fn deliver(&self, sink: &Sink, mut bytes: &[u8]) -> bool {
        let (Sink::Pipe(fd) | Sink::Terminal(fd)) = sink;
        while !bytes.is_empty() {
            match write(fd, bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    let mut fds = [
                        PollFd::new(fd, PollFlags::OUT),
                        PollFd::new(&self.bell, PollFlags::IN),
                    ];
                    // A wait that fails is tried again by the loop.
                    let _ = poll(&mut fds, None);
                    self.bell.silence();
                    if self.lock().sink.is_none() {
                        return false;
                    }
                }
                Err(_) => return false,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use rustix::pipe::{PipeFlags, pipe_with};

    use super::*;

    fn port() -> (InputPort, UnixStream) {
        let (guest, host) = UnixStream::pair().unwrap();
        let file = File::from(OwnedFd::from(guest));
        (InputPort::new(file).unwrap(), host)
    }

    fn pipe() -> (File, Sink) {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        rustix::fs::fcntl_setfl(&write, rustix::fs::OFlags::NONBLOCK).unwrap();
        (File::from(read), Sink::Pipe(write))
    }

    #[test]
    fn each_command_gets_its_own_input_to_its_end() {
        let (port, mut host) = port();
        let mut total = 0;
        for part in [&b"first"[..], b"", &vec![9; 1 << 20]] {
            let (mut read, sink) = pipe();
            port.begin(sink);
            total += part.len() as u64;
            let expected = part.to_owned();
            let reader = thread::spawn(move || {
                let mut bytes = Vec::new();
                read.read_to_end(&mut bytes).unwrap();
                assert!(bytes == expected);
            });
            host.write_all(part).unwrap();
            port.end_at(total);
            reader.join().unwrap();
        }
    }

    #[test]
    fn what_a_command_did_not_read_is_not_the_next_one_s() {
        let (port, mut host) = port();
        let (held, sink) = pipe();
        port.begin(sink);
        // More than a pipe holds: the thread is in the middle of it when the command ends.
        host.write_all(&vec![1; 200_000]).unwrap();
        port.stop();
        port.end_at(200_000);
        let (mut read, sink) = pipe();
        port.begin(sink);
        host.write_all(b"second").unwrap();
        port.end_at(200_006);
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        assert_eq!(text, "second");
        drop(held);
    }
}
