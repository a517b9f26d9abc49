// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The driver's events in the text of a guest's trace.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::clock::{Clock, Span};

/// One event of the driver.
#[derive(Clone, Debug, PartialEq)]
pub struct GuestEvent {
    /// Without what all names begin with: `batch_submit`, `fault` …
    pub name: String,
    /// The task, as the kernel writes it: `name-pid`.
    pub task: String,
    /// On the guest's clock, microseconds.
    pub time: f64,
    /// Its other fields, by name.
    pub fields: BTreeMap<String, String>,
}

/// The events of `device` in `text`; other lines are left out. The end of a batch also has what was told when it was
/// submitted.
pub fn parse(text: &str, device: &str) -> Vec<GuestEvent> {
    let mut events: Vec<GuestEvent> = text
        .lines()
        .filter_map(parse_line)
        .filter(|event| event.fields.get("dev").is_some_and(|name| name == device))
        .collect();
    let mut submitted = BTreeMap::new();
    for event in &mut events {
        let cookie = event.fields.get("cookie").cloned();
        match (event.name.as_str(), cookie) {
            ("batch_submit", Some(cookie)) => {
                submitted.insert(cookie, event.fields.clone());
            }
            ("batch_done", Some(cookie)) => {
                for (key, value) in submitted.remove(&cookie).unwrap_or_default() {
                    event.fields.entry(key).or_insert(value);
                }
            }
            _ => {}
        }
    }
    events
}

/// The name of the device that the first event is of.
pub fn first_device(text: &str) -> Option<&str> {
    text.lines().find_map(|line| {
        let (_, event) = line.split_once(": vhmm_")?;
        (event.split_whitespace()).find_map(|field| field.strip_prefix("dev="))
    })
}

/// A line such as `  name-107   [001] .....     6.990933: vhmm_skip: dev=virtio0 reason=hole pages=3`.
fn parse_line(line: &str) -> Option<GuestEvent> {
    let (head, event) = line.split_once(": vhmm_")?;
    let (name, fields) = event.split_once(": ")?;
    let (task, rest) = head.split_once('[')?;
    let seconds: f64 = rest.split_whitespace().last()?.parse().ok()?;
    let fields = fields
        .split_whitespace()
        .filter_map(|field| {
            let (key, value) = field.split_once('=')?;
            Some((key.to_owned(), value.to_owned()))
        })
        .collect();
    Some(GuestEvent {
        name: name.to_owned(),
        task: task.trim().to_owned(),
        time: seconds * 1e6,
        fields,
    })
}

/// A mark that a program wrote into the trace: `… tracing_mark_write: NAME: key=value …`. The words of it that are no
/// fields are those of the field without a name, separated by spaces.
pub(crate) fn mark(line: &str) -> Option<GuestEvent> {
    let (head, mark) = line.split_once(": tracing_mark_write: ")?;
    let (name, words) = mark.split_once(": ")?;
    let (task, rest) = head.rsplit_once('[')?;
    let seconds: f64 = rest.split_whitespace().last()?.parse().ok()?;
    let mut fields = BTreeMap::new();
    let mut others = Vec::new();
    for word in words.split_whitespace() {
        match word.split_once('=') {
            Some((key, value)) => {
                fields.insert(key.to_owned(), value.to_owned());
            }
            None => others.push(word),
        }
    }
    fields.insert(String::new(), others.join(" "));
    Some(GuestEvent {
        name: name.to_owned(),
        task: task.trim().to_owned(),
        time: seconds * 1e6,
        fields,
    })
}

/// The batches that were submitted and came back, by their cookie, each in the row of its queue.
pub fn batches(events: &[GuestEvent]) -> BTreeMap<u64, Span> {
    let mut submitted = BTreeMap::new();
    let mut batches = BTreeMap::new();
    for event in events {
        let (Some(cookie), Some(queue)) = (event.number("cookie"), event.number("queue")) else {
            continue;
        };
        match event.name.as_str() {
            "batch_submit" => {
                submitted.insert(cookie, event.time);
            }
            "batch_done" => {
                if let Some(start) = submitted.remove(&cookie) {
                    batches.insert(
                        cookie,
                        Span {
                            track: queue,
                            start,
                            end: event.time,
                        },
                    );
                }
            }
            _ => {}
        }
    }
    batches
}

/// The row for what is not in a queue.
const OTHER_TRACK: u64 = 100;

impl GuestEvent {
    /// A field that is a number, decimal or hexadecimal with `0x`.
    pub fn number(&self, field: &str) -> Option<u64> {
        let text = self.fields.get(field)?;
        match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16).ok(),
            None => text.parse().ok(),
        }
    }

    /// A field as it is; empty if it is not there.
    pub fn word(&self, field: &str) -> &str {
        self.fields.get(field).map_or("", String::as_str)
    }

    /// The event as the viewer shows it, on the host's clock: a stretch of time if it has a beginning and an end, else an instant. A
    /// submission is the beginning of its batch, and shows with its end only if there is one.
    pub fn to_json(&self, process: u64, clock: Clock) -> Option<Value> {
        let end = clock.to_host(self.time);
        let mut arguments: Map<String, Value> = self
            .fields
            .iter()
            .map(|(key, value)| (key.clone(), json!(value)))
            .collect();
        arguments.insert("task".to_owned(), json!(self.task));
        let duration = self.number("ns").map(|ns| clock.rate * ns as f64 / 1e3);
        let (name, track) = match self.name.as_str() {
            "batch_submit" => return None,
            "batch_done" => (self.word("direction").to_owned(), self.number("queue")?),
            "skip" => (format!("skip: {}", self.word("reason")), OTHER_TRACK),
            name => (name.to_owned(), OTHER_TRACK),
        };
        Some(match duration {
            Some(duration) => json!({
                "name": name, "cat": self.name, "ph": "X", "pid": process, "tid": track,
                "ts": end - duration, "dur": duration, "args": arguments,
            }),
            None => json!({
                "name": name, "cat": self.name, "ph": "i", "s": "p", "pid": process, "tid": track,
                "ts": end, "args": arguments,
            }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{batches, parse};

    #[test]
    fn a_batch_without_an_end_is_none() {
        let text = "\
x-1 [000] ..... 1.000001: vhmm_batch_submit: dev=virtio0 cookie=0x1 queue=2
x-1 [000] ..... 1.000002: vhmm_batch_submit: dev=virtio0 cookie=0x2 queue=3
x-1 [000] ..... 1.000005: vhmm_batch_done: dev=virtio0 cookie=0x2 queue=3
x-1 [000] ..... 1.000006: sched_switch: prev_comm=x
CPU:0 [LOST 5 EVENTS]
";
        let events = parse(text, "virtio0");
        assert_eq!(events.len(), 3);
        let batches = batches(&events);
        assert_eq!(batches.len(), 1);
        assert_eq!(batches[&2].track, 3);
        assert!((batches[&2].end - batches[&2].start - 3.0).abs() < 0.01);
    }
}
