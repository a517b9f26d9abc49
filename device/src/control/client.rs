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
/// A client that leaves so many bytes of answers unread is dropped.
const MAX_UNREAD_BYTES: usize = 16 << 20;

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

    /// What to wait for: input, and room for output if there is some left.
    pub(super) fn interest(&self) -> Events {
        let set = if self.output.is_empty() {
            EventSet::IN
        } else if self.at_end {
            EventSet::OUT
        } else {
            EventSet::IN | EventSet::OUT
        };
        Events::new(&self.stream, set)
    }

    /// Answers what has come. Returns whether the client stays.
    pub(super) fn serve(&mut self, answer: impl Fn(&str) -> String) -> bool {
        if !self.receive() {
            return false;
        }
        while let Some(end) = self.input.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.input.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let line = line.trim();
            if !line.is_empty() {
                self.output.extend_from_slice(answer(line).as_bytes());
                self.output.push(b'\n');
            }
        }
        if self.input.len() > MAX_LINE_BYTES || self.output.len() > MAX_UNREAD_BYTES {
            return false;
        }
        self.send() && !(self.at_end && self.output.is_empty())
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
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(count) => {
                    self.output.drain(..count);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }
}
