// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Bytes to the guest: the command's standard input.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::event::Event;

/// Where a command's standard input comes from.
pub enum Input {
    /// It is empty.
    Empty,
    /// From here, to its end.
    Reader(Box<dyn Read + Send>),
}

/// The host's end of the input port.
pub(crate) struct InputPort {
    shared: Arc<Mutex<State>>,
}

struct State {
    socket: UnixStream,
    /// Bytes sent since boot.
    sent: u64,
    /// The command that may send. What another one still reads is dropped.
    current: u64,
}

impl InputPort {
    pub(crate) fn new(socket: UnixStream) -> Self {
        Self {
            shared: Arc::new(Mutex::new(State {
                socket,
                sent: 0,
                current: 0,
            })),
        }
    }

    /// Sends `input` until it ends or [`InputPort::stop`] is called. The end is told by [`Event::InputEnd`].
    pub(crate) fn take_from(
        &self,
        input: Input,
        command: u64,
        events: Sender<Event>,
    ) -> io::Result<()> {
        self.shared
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .current = command;
        let shared = Arc::clone(&self.shared);
        let mut reader: Box<dyn Read + Send> = match input {
            Input::Empty => Box::new(io::empty()),
            Input::Reader(reader) => reader,
        };
        thread::Builder::new()
            .name("stdin".to_owned())
            .spawn(move || {
                let total = send(&shared, &mut *reader, command);
                if let Some(total) = total {
                    // The receiver is gone when the guest was given up.
                    let _ = events.send(Event::InputEnd { command, total });
                }
            })?;
        Ok(())
    }

    /// Ends the current command's input and says how much was sent since boot.
    pub(crate) fn stop(&self) -> u64 {
        let mut state = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        state.current = 0;
        state.sent
    }
}

/// Returns the bytes since boot at the end of the input, or `None` when another command is the current one.
fn send(shared: &Mutex<State>, reader: &mut dyn Read, command: u64) -> Option<u64> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        // An input that fails is an input that ended: the command has seen all that there was.
        let length = match reader.read(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => 0,
        };
        let mut state = shared.lock().unwrap_or_else(PoisonError::into_inner);
        if state.current != command {
            return None;
        }
        if length == 0 {
            return Some(state.sent);
        }
        // The guest's init takes bytes even when the command does not want them any more, so that this ends.
        if state.socket.write_all(&buffer[..length]).is_err() {
            return None;
        }
        state.sent += length as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn the_end_of_the_input_is_a_count() {
        let (host, mut guest) = UnixStream::pair().unwrap();
        let port = InputPort::new(host);
        let (sender, events) = mpsc::channel();
        let bytes = vec![3; 1 << 20];
        let input = Input::Reader(Box::new(io::Cursor::new(bytes.clone())));
        port.take_from(input, 1, sender).unwrap();
        let mut received = vec![0; bytes.len()];
        guest.read_exact(&mut received).unwrap();
        assert!(received == bytes);
        assert!(matches!(
            events.recv().unwrap(),
            Event::InputEnd { command: 1, total } if total == bytes.len() as u64
        ));
        assert_eq!(port.stop(), bytes.len() as u64);
    }

    #[test]
    fn a_command_that_ended_sends_no_more() {
        let (host, mut guest) = UnixStream::pair().unwrap();
        let port = InputPort::new(host);
        let (sender, events) = mpsc::channel();
        let (late, mut typed) = UnixStream::pair().unwrap();
        port.take_from(Input::Reader(Box::new(late)), 1, sender.clone())
            .unwrap();
        typed.write_all(b"a").unwrap();
        guest.read_exact(&mut [0]).unwrap();
        assert_eq!(port.stop(), 1);
        typed.write_all(b"dropped").unwrap();
        port.take_from(Input::Empty, 2, sender).unwrap();
        assert!(matches!(
            events.recv().unwrap(),
            Event::InputEnd {
                command: 2,
                total: 1
            }
        ));
    }
}
