// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whether a device's process answers on its control socket, and completes what its queues have.

use std::collections::BTreeMap;
use std::io::{self, BufReader};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use hmm_control::line::{self, LineError};
use serde::Deserialize;
use serde_json::json;

use super::super::device;

/// Time between two questions.
const PERIOD: Duration = Duration::from_secs(1);
/// Time between two attempts to connect to a process that has just been started.
const RETRY: Duration = Duration::from_millis(50);

/// Asks a process again and again, from a thread of its own, until it ends. Tells `hangs` once if it does not answer for `limit`,
/// or if one of its queues completes nothing for as long though it has something to do.
pub(in crate::guest) fn watch(
    folder: PathBuf,
    socket: String,
    limit: Duration,
    hangs: impl FnOnce(String) + Send + 'static,
) {
    thread::spawn(move || {
        if let Err(hang) = ask_until_it_ends(|| device::connect(&folder, &socket), limit) {
            let what = match hang {
                Hang::Silent => "it did not answer on its control socket".to_owned(),
                Hang::Stalled(queue) => format!("its queue {queue} completed nothing"),
            };
            hangs(format!("{what} for {:.1} s", limit.as_secs_f64()));
        }
    });
}

/// How a process hangs.
#[derive(Debug, PartialEq, Eq)]
enum Hang {
    /// No answer came in time.
    Silent,
    /// This queue has something to do, and completed nothing for as long.
    Stalled(String),
}

/// What the process answers.
#[derive(Debug, Deserialize)]
struct Answer {
    /// A process of another version may know of no queues.
    #[serde(default)]
    queues: Vec<Progress>,
    /// Whether it serves no batches because it was told so.
    #[serde(default)]
    paused: bool,
}

#[derive(Debug, Deserialize)]
struct Progress {
    queue: String,
    completed: u16,
    is_waiting: bool,
}

/// Since when queues that have something to do have completed nothing.
#[derive(Debug, Default)]
struct Stalls(BTreeMap<String, (u16, Instant)>);

impl Stalls {
    /// Notes what a process answered at `now`. Returns a queue that has stalled for `limit`.
    fn note(&mut self, answer: Answer, now: Instant, limit: Duration) -> Option<String> {
        if answer.paused {
            self.0.clear();
            return None;
        }
        let mut since = BTreeMap::new();
        let mut stalled = None;
        for Progress {
            queue, completed, ..
        } in (answer.queues.into_iter()).filter(|progress| progress.is_waiting)
        {
            let begin = match self.0.get(&queue) {
                Some((before, begin)) if *before == completed => *begin,
                _ => now,
            };
            if now.saturating_duration_since(begin) >= limit {
                stalled.get_or_insert_with(|| queue.clone());
            }
            since.insert(queue, (completed, begin));
        }
        self.0 = since;
        stalled
    }
}

fn ask_until_it_ends(
    connect: impl Fn() -> io::Result<UnixStream>,
    limit: Duration,
) -> Result<(), Hang> {
    let began = Instant::now();
    let socket = loop {
        match connect() {
            Ok(socket) => break socket,
            Err(_) if began.elapsed() < limit => thread::sleep(RETRY),
            // It ended before it could be asked, or is about to: that is told elsewhere. A process that hangs has its socket.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(_) => return Err(Hang::Silent),
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
    let mut stalls = Stalls::default();
    loop {
        if line::write(&mut questions, &json!({"command": "progress"})).is_err() {
            return Ok(());
        }
        match line::read::<Answer>(&mut answers) {
            Ok(Some(answer)) => {
                if let Some(queue) = stalls.note(answer, Instant::now(), limit) {
                    return Err(Hang::Stalled(queue));
                }
                thread::sleep(PERIOD);
            }
            Ok(None) => return Ok(()),
            Err(LineError::Io(error)) if is_timeout(&error) => return Err(Hang::Silent),
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
        let hang = ask_until_it_ends(connect, Duration::from_millis(100));
        assert_eq!(hang, Err(Hang::Silent));
    }

    fn answer(text: &str) -> Answer {
        serde_json::from_str(text).unwrap()
    }

    fn bulk(completed: u16, is_waiting: bool) -> Answer {
        answer(&format!(
            r#"{{"ok":true,"paused":false,"queues":[{{"queue":"bulk0","completed":{completed},"is_waiting":{is_waiting}}},
                {{"queue":"urgent","completed":0,"is_waiting":false}}]}}"#
        ))
    }

    #[test]
    fn a_queue_that_completes_nothing_of_what_it_has_is_stalled() {
        let (mut stalls, begin) = (Stalls::default(), Instant::now());
        let mut at = |seconds, answer| {
            let now = begin + Duration::from_secs(seconds);
            stalls.note(answer, now, Duration::from_secs(10))
        };
        // It has nothing to do.
        assert_eq!(at(0, bulk(7, false)), None);
        assert_eq!(at(20, bulk(7, true)), None);
        assert_eq!(at(29, bulk(7, true)), None);
        // It goes on.
        assert_eq!(at(30, bulk(8, true)), None);
        assert_eq!(at(39, bulk(8, false)), None);
        assert_eq!(at(40, bulk(8, true)), None);
        assert_eq!(at(50, bulk(8, true)).as_deref(), Some("bulk0"));
    }

    #[test]
    fn a_process_that_was_told_to_pause_is_not_stalled() {
        let (mut stalls, begin) = (Stalls::default(), Instant::now());
        let limit = Duration::from_secs(10);
        assert_eq!(stalls.note(bulk(7, true), begin, limit), None);
        let paused = Answer {
            paused: true,
            ..bulk(7, true)
        };
        let later = begin + limit;
        assert_eq!(stalls.note(paused, later, limit), None);
        assert_eq!(stalls.note(bulk(7, true), later, limit), None);
        assert_eq!(
            stalls.note(answer(r#"{"ok":false,"error":"?"}"#), later + limit, limit),
            None
        );
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
