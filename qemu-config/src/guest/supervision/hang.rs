// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whether a device's process answers on its control socket.

use std::io::{self, BufReader};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use hmm_control::line::{self, LineError};
use serde_json::{Value, json};

use super::super::device;

/// Time between two questions.
const PERIOD: Duration = Duration::from_secs(1);
/// Time between two attempts to connect to a process that has just been started.
const RETRY: Duration = Duration::from_millis(50);

/// Asks a process again and again, from a thread of its own, until it ends. Tells `hangs` once if it does not answer for `limit`.
pub(in crate::guest) fn watch(
    folder: PathBuf,
    socket: String,
    limit: Duration,
    hangs: impl FnOnce(String) + Send + 'static,
) {
    thread::spawn(move || {
        if let Err(Silent) = ask_until_it_ends(|| device::connect(&folder, &socket), limit) {
            hangs(format!(
                "it did not answer on its control socket for {:.1} s",
                limit.as_secs_f64()
            ));
        }
    });
}

/// No answer came in time.
#[derive(Debug)]
struct Silent;

fn ask_until_it_ends(
    connect: impl Fn() -> io::Result<UnixStream>,
    limit: Duration,
) -> Result<(), Silent> {
    let began = Instant::now();
    let socket = loop {
        match connect() {
            Ok(socket) => break socket,
            Err(_) if began.elapsed() < limit => thread::sleep(RETRY),
            // It ended before it could be asked, or is about to: that is told elsewhere. A process that hangs has its socket.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(_) => return Err(Silent),
        }
    };
    let prepared = || -> io::Result<_> {
        socket.set_read_timeout(Some(limit))?;
        socket.set_write_timeout(Some(limit))?;
        Ok((socket.try_clone()?, BufReader::new(socket)))
    };
    let Ok((mut questions, mut answers)) = prepared() else {
        return Ok(());
    };
    loop {
        if line::write(&mut questions, &json!({"command": "fault-list"})).is_err() {
            return Ok(());
        }
        match line::read::<Value>(&mut answers) {
            Ok(Some(_)) => thread::sleep(PERIOD),
            Ok(None) => return Ok(()),
            Err(LineError::Io(error)) if is_timeout(&error) => return Err(Silent),
            Err(_) => return Ok(()),
        }
    }
}

/// What a read says whose time is over.
fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (UnixStream, impl Fn() -> io::Result<UnixStream>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (ours, move || theirs.try_clone())
    }

    #[test]
    fn a_process_that_says_nothing_hangs() {
        let (_process, connect) = pair();
        let Err(Silent) = ask_until_it_ends(connect, Duration::from_millis(100)) else {
            panic!("nobody answered");
        };
    }

    #[test]
    fn the_end_of_a_process_is_no_hang() {
        let (process, connect) = pair();
        drop(process);
        ask_until_it_ends(connect, Duration::from_secs(60)).unwrap();
        let gone = || Err(io::ErrorKind::NotFound.into());
        ask_until_it_ends(gone, Duration::ZERO).unwrap();
    }
}
