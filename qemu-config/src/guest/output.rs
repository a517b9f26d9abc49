// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Bytes from the guest: a port is read all the time, and each command's part of it goes to that command's sink.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::event::Event;

/// Which port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
    Ktap,
}

/// The host's end of an output port.
#[derive(Clone)]
pub(crate) struct OutputPort {
    stream: Stream,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    chunks: VecDeque<Vec<u8>>,
    queued: usize,
    /// Bytes taken out of the queue since boot.
    taken: u64,
    /// Where the current command's bytes end, once the guest has said it.
    total: Option<u64>,
    lost: bool,
}

/// How many bytes may wait for a slow sink before the guest has to wait.
const QUEUE_LIMIT: usize = 1 << 20;

impl OutputPort {
    /// Reads the port from now on.
    pub(crate) fn new(stream: Stream, socket: UnixStream) -> io::Result<Self> {
        let port = Self {
            stream,
            shared: Arc::new(Shared {
                state: Mutex::default(),
                changed: Condvar::new(),
            }),
        };
        let reader = port.clone();
        thread::Builder::new()
            .name(format!("{stream:?} port"))
            .spawn(move || reader.fill(socket))?;
        Ok(port)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves the queue as it was: every change is one step.
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.shared
            .changed
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn fill(&self, mut socket: UnixStream) {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let length = match socket.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => break,
            };
            let mut state = self.lock();
            while state.queued > QUEUE_LIMIT {
                state = self.wait(state);
            }
            state.queued += length;
            state.chunks.push_back(buffer[..length].to_owned());
            self.shared.changed.notify_all();
        }
        self.lock().lost = true;
        self.shared.changed.notify_all();
    }

    /// The next piece; `None` when the current command's part is complete.
    fn take(&self) -> io::Result<Option<Vec<u8>>> {
        let mut state = self.lock();
        loop {
            if let Some(chunk) = state.chunks.pop_front() {
                state.queued -= chunk.len();
                state.taken += chunk.len() as u64;
                self.shared.changed.notify_all();
                return Ok(Some(chunk));
            }
            if state.total.is_some_and(|total| state.taken >= total) {
                return Ok(None);
            }
            if state.lost {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            state = self.wait(state);
        }
    }

    /// Hands everything that arrives from now on to `sink`, until [`OutputPort::end_at`] is reached. Says so by
    /// [`Event::OutputDone`], and by [`Event::OutputClosed`] as soon as the sink refuses.
    pub(crate) fn hand_to(
        &self,
        mut sink: Box<dyn Write + Send>,
        events: Sender<Event>,
    ) -> io::Result<()> {
        self.lock().total = None;
        let port = self.clone();
        thread::Builder::new()
            .name(format!("{:?} sink", self.stream))
            .spawn(move || {
                let result = port.drain(&mut *sink, &events);
                // The receiver is gone when the guest was given up.
                let _ = events.send(Event::OutputDone(port.stream, result));
            })?;
        Ok(())
    }

    fn drain(&self, sink: &mut dyn Write, events: &Sender<Event>) -> io::Result<()> {
        let mut open = true;
        while let Some(chunk) = self.take()? {
            if open && sink.write_all(&chunk).and_then(|()| sink.flush()).is_err() {
                // What the command still writes is read and dropped until it notices.
                open = false;
                let _ = events.send(Event::OutputClosed(self.stream));
            }
        }
        Ok(())
    }

    /// Says where the current command's bytes end.
    pub(crate) fn end_at(&self, total: u64) {
        self.lock().total = Some(total);
        self.shared.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::super::collected::Collected;
    use super::*;

    struct Broken;

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn each_command_gets_its_own_part() {
        let (host, mut guest) = UnixStream::pair().unwrap();
        let port = OutputPort::new(Stream::Stdout, host).unwrap();
        let mut total = 0;
        for part in [&b"first"[..], b"", &vec![7; 5 << 20]] {
            let (sender, events) = mpsc::channel();
            let sink = Collected::default();
            port.hand_to(Box::new(sink.clone()), sender).unwrap();
            guest.write_all(part).unwrap();
            total += part.len() as u64;
            port.end_at(total);
            assert!(matches!(
                events.recv().unwrap(),
                Event::OutputDone(Stream::Stdout, Ok(()))
            ));
            assert!(sink.take() == part);
        }
    }

    #[test]
    fn a_closed_sink_is_told_once_and_the_rest_is_dropped() {
        let (host, mut guest) = UnixStream::pair().unwrap();
        let port = OutputPort::new(Stream::Stderr, host).unwrap();
        let (sender, events) = mpsc::channel();
        port.hand_to(Box::new(Broken), sender).unwrap();
        let bytes = vec![1; 4 << 20];
        guest.write_all(&bytes).unwrap();
        port.end_at(bytes.len() as u64);
        assert!(matches!(
            events.recv().unwrap(),
            Event::OutputClosed(Stream::Stderr)
        ));
        assert!(matches!(
            events.recv().unwrap(),
            Event::OutputDone(Stream::Stderr, Ok(()))
        ));
    }

    #[test]
    fn a_lost_port_is_an_error() {
        let (host, guest) = UnixStream::pair().unwrap();
        let port = OutputPort::new(Stream::Stdout, host).unwrap();
        let (sender, events) = mpsc::channel();
        port.hand_to(Box::new(io::sink()), sender).unwrap();
        drop(guest);
        assert!(matches!(
            events.recv().unwrap(),
            Event::OutputDone(Stream::Stdout, Err(_))
        ));
    }
}
