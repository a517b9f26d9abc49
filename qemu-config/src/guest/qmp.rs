// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! QEMU's machine protocol: commands, their answers, and events.
//!
//! This is not the `qapi` crate, because its events are a closed list taken from the schema of one QEMU: an event that
//! another version added is an error that ends the connection.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IoSlice, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::Deserialize;
use serde_json::{Value, json};

/// How long QEMU may take to answer. Its main loop answers between other things, never after something long.
const LIMIT: Duration = Duration::from_secs(30);

/// A line from QEMU.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Message {
    Greeting {
        #[serde(rename = "QMP")]
        _greeting: Value,
    },
    Return {
        r#return: Value,
    },
    Error {
        error: Failure,
    },
    Event {
        event: String,
        #[serde(default)]
        data: Value,
    },
}

/// Why QEMU did not do what it was asked.
#[derive(Debug, Deserialize, thiserror::Error)]
#[error("{class}: {desc}")]
struct Failure {
    class: String,
    desc: String,
}

/// Why a command has no result.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Failure(#[from] Failure),
    #[error("{error} in {line:?}")]
    Malformed {
        line: String,
        error: serde_json::Error,
    },
}

/// A connection to QEMU.
pub(crate) struct Qmp {
    socket: UnixStream,
    answers: Receiver<Result<Value, Refusal>>,
    log: Arc<Mutex<File>>,
}

impl Qmp {
    /// Takes the connection: reads it all the time and tells `event` of each event by its name and data, from
    /// another thread. Everything that is said goes to `log`.
    pub(crate) fn new(
        socket: UnixStream,
        log: File,
        event: impl Fn(String, Value) + Send + 'static,
    ) -> io::Result<Self> {
        let (sender, answers) = mpsc::channel();
        let reader = BufReader::new(socket.try_clone()?);
        let log = Arc::new(Mutex::new(log));
        let copy = Arc::clone(&log);
        thread::Builder::new()
            .name("qmp".to_owned())
            .spawn(move || {
                for line in reader.lines() {
                    let Ok(line) = line else { break };
                    note(&copy, "<", &line);
                    match serde_json::from_str(&line) {
                        Ok(Message::Event { event: name, data }) => event(name, data),
                        Ok(Message::Return { r#return }) => drop(sender.send(Ok(r#return))),
                        Ok(Message::Error { error }) => {
                            drop(sender.send(Err(Refusal::Failure(error))));
                        }
                        Ok(Message::Greeting { .. }) => {}
                        Err(error) => {
                            drop(sender.send(Err(Refusal::Malformed { line, error })));
                        }
                    }
                }
            })?;
        Ok(Self {
            socket,
            answers,
            log,
        })
    }

    /// Leaves the negotiation. The first command of a connection.
    pub(crate) fn negotiate(&mut self) -> io::Result<()> {
        self.execute("qmp_capabilities", json!({})).map(drop)
    }

    /// Hands a descriptor to QEMU, which knows it as `name` from then on, until something takes it.
    pub(crate) fn hand_over(&mut self, name: &str, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        let line = json!({"execute": "getfd", "arguments": {"fdname": name}}).to_string();
        note(&self.log, ">", &line);
        let text = format!("{line}\n");
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let descriptors = [descriptor];
        if !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err(io::Error::other("no room for a descriptor"));
        }
        let sent = sendmsg(
            &self.socket,
            &[IoSlice::new(text.as_bytes())],
            &mut ancillary,
            SendFlags::empty(),
        )?;
        // The descriptor goes with the first byte.
        self.socket.write_all(&text.as_bytes()[sent..])?;
        self.answer("getfd").map(drop)
    }

    /// Runs one command and waits for its answer.
    pub(crate) fn execute(&mut self, command: &str, arguments: Value) -> io::Result<Value> {
        let line = json!({"execute": command, "arguments": arguments}).to_string();
        note(&self.log, ">", &line);
        self.socket.write_all(format!("{line}\n").as_bytes())?;
        self.answer(command)
    }

    fn answer(&mut self, command: &str) -> io::Result<Value> {
        match self.answers.recv_timeout(LIMIT) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(refusal)) => Err(io::Error::other(format!(
                "QEMU refused {command}: {refusal}"
            ))),
            Err(RecvTimeoutError::Timeout) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("QEMU did not answer {command} within {} s", LIMIT.as_secs()),
            )),
            Err(RecvTimeoutError::Disconnected) => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("QEMU ended before it answered {command}"),
            )),
        }
    }
}

impl Drop for Qmp {
    fn drop(&mut self) {
        // Its thread reads a descriptor of its own, which would keep the connection open. QEMU may have closed it.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

fn note(log: &Mutex<File>, mark: &str, line: &str) {
    let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
    // A log that cannot be written must not end the run.
    let _ = writeln!(log, "{mark} {line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A QEMU that says what it is told to, one line an expected command.
    fn qemu(lines: &'static [&'static str]) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        thread::spawn(move || {
            let mut commands = BufReader::new(theirs.try_clone().unwrap());
            let mut out = theirs;
            out.write_all(b"{\"QMP\": {\"version\": {}, \"capabilities\": []}}\n")
                .unwrap();
            for line in lines {
                let mut command = String::new();
                commands.read_line(&mut command).unwrap();
                serde_json::from_str::<Value>(&command).unwrap();
                writeln!(out, "{line}").unwrap();
            }
        });
        ours
    }

    fn connect(lines: &'static [&'static str]) -> (Qmp, Receiver<(String, Value)>) {
        let (sender, events) = mpsc::channel();
        let qmp = Qmp::new(
            qemu(lines),
            tempfile::tempfile().unwrap(),
            move |name, data| {
                let _ = sender.send((name, data));
            },
        );
        (qmp.unwrap(), events)
    }

    #[test]
    fn events_and_answers_are_told_apart() {
        let (mut qmp, events) = connect(&[
            r#"{"return": {}}"#,
            "{\"event\": \"STOP\", \"data\": {}}\n{\"return\": {\"status\": \"internal-error\"}}",
        ]);
        qmp.negotiate().unwrap();
        let status = qmp.execute("query-status", json!({})).unwrap();
        assert_eq!(status["status"], "internal-error");
        assert_eq!(events.recv().unwrap().0, "STOP");
    }

    #[test]
    fn a_refusal_says_why() {
        let (mut qmp, _events) =
            connect(&[r#"{"error": {"class": "DeviceNotFound", "desc": "no hmm9"}}"#]);
        let error = qmp
            .execute("device_del", json!({"id": "hmm9"}))
            .unwrap_err();
        assert!(error.to_string().contains("no hmm9"), "{error}");
    }

    #[test]
    fn an_end_is_no_hang() {
        let (mut qmp, _events) = connect(&[]);
        assert!(qmp.negotiate().is_err());
    }
}
