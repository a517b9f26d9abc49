// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One client of the control socket: lines in, lines out, never waiting.

use std::{
    io::{ErrorKind, Read, Write},
    os::{
        fd::{AsRawFd, RawFd},
        unix::net::UnixStream,
    },
};

use event_manager::{EventSet, Events};

/// The longest line that is understood.
const MAX_LINE_BYTES: usize = 64 << 10;
/// No command is taken from a client that has left so many bytes of answers unread, until it has read them.
const MAX_UNREAD_BYTES: usize = 128 << 10;

pub(super) struct Client {
    stream: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
    at_end: bool,
}

impl Client {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            input: Vec::new(),
            output: Vec::new(),
            at_end: false,
        }
    }

    pub(super) fn descriptor(&self) -> RawFd {
        self.stream.as_raw_fd()
    }

    /// What to wait for: input while all that came is answered, and room for output while there is something to say.
    pub(super) fn interest(&self) -> Events {
        let pending = self.has_line();
        let mut set = EventSet::empty();
        if !pending && !self.at_end {
            set |= EventSet::IN;
        }
        if pending || !self.output.is_empty() {
            set |= EventSet::OUT;
        }
        Events::new(&self.stream, set)
    }

    /// Answers what has come, up to what may be left unread. Returns whether the client stays.
    pub(super) fn serve(&mut self, answer: impl Fn(&str) -> String) -> bool {
        if !self.has_line() && !self.receive() {
            return false;
        }
        let mut taken = 0;
        while self.output.len() < MAX_UNREAD_BYTES
            && let Some(len) = self.input[taken..].iter().position(|byte| *byte == b'\n')
        {
            let line = String::from_utf8_lossy(&self.input[taken..taken + len]);
            let line = line.trim();
            if !line.is_empty() {
                self.output.extend_from_slice(answer(line).as_bytes());
                self.output.push(b'\n');
            }
            taken += len + 1;
        }
        self.input.drain(..taken);
        if !self.has_line() && self.input.len() > MAX_LINE_BYTES {
            return false;
        }
        self.send() && !(self.at_end && self.output.is_empty() && !self.has_line())
    }

    /// Whether a whole line waits to be answered.
    fn has_line(&self) -> bool {
        self.input.contains(&b'\n')
    }

    fn receive(&mut self) -> bool {
        let mut buffer = [0; 4096];
        while !self.at_end && self.input.len() <= MAX_LINE_BYTES {
            match self.stream.read(&mut buffer) {
                Ok(0) => self.at_end = true,
                Ok(count) => self.input.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }

    fn send(&mut self) -> bool {
        let mut sent = 0;
        let stays = loop {
            let rest = &self.output[sent..];
            if rest.is_empty() {
                break true;
            }
            match self.stream.write(rest) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break false,
            }
        };
        self.output.drain(..sent);
        if self.output.is_empty() {
            // One large answer need not be paid for until the client goes.
            self.output.shrink_to(MAX_UNREAD_BYTES);
        }
        stays
    }
}
