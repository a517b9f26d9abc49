// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The control port on the host: reports become events, questions get answers.

use std::io::{self, BufReader};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

use hmm_control::{Question, Report, Request, line};
use serde_json::{Value, json};

use super::event::Event;
use super::{Guest, Result, device};

/// Reads the port all the time.
pub(super) fn listen(socket: UnixStream, events: Sender<Event>) -> io::Result<()> {
    thread::Builder::new()
        .name("control port".to_owned())
        .spawn(move || {
            let mut reader = BufReader::new(socket);
            loop {
                let event = match line::read::<Report>(&mut reader) {
                    Ok(Some(report)) => Event::Report(report),
                    Ok(None) => Event::ControlLost("its control port was closed".to_owned()),
                    Err(error) => Event::ControlLost(error.to_string()),
                };
                let last = matches!(event, Event::ControlLost(_));
                if events.send(event).is_err() || last {
                    break;
                }
            }
        })?;
    Ok(())
}

/// How long [`Question::StopGuest`] stops it.
const STOP: Duration = Duration::from_secs(1);

impl Guest {
    fn stop_for_a_moment(&mut self) -> io::Result<()> {
        self.qmp.execute("stop", json!({}))?;
        thread::sleep(STOP);
        self.qmp.execute("cont", json!({})).map(drop)
    }

    /// Answers a question of the guest.
    pub(super) fn answer(&mut self, id: u64, question: Question) -> Result<()> {
        let answer = match question {
            Question::Device { index, request } => {
                device::ask(&self.devices, &self.folder, index, &request)
                    .map_err(|error| error.to_string())
            }
            Question::Unplug { index } => self
                .ask_to_unplug(index)
                .map(|()| Value::Null)
                .map_err(|error| error.to_string()),
            Question::Harm { index, harm } => self.harm(index, harm).map(|()| Value::Null),
            Question::ComeBack { index } => self.come_back(index).map(|()| Value::Null),
            Question::StopGuest => (self.stop_for_a_moment())
                .map(|()| Value::Null)
                .map_err(|error| error.to_string()),
            Question::RebootAhead => (self.qmp.execute("set-action", json!({"reboot": "reset"})))
                .map(|_| Value::Null)
                .map_err(|error| error.to_string()),
            Question::PowerOffAhead => {
                self.watch.expect_power_off();
                Ok(Value::Null)
            }
        };
        self.send(&Request::Answer { id, answer })
    }
}
