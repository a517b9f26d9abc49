// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The driver's trace events, recorded.

use crate::cases::case::skip;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = "/sys/kernel/tracing";

/// A recording of all of the driver's events, in a buffer of its own.
#[derive(Debug)]
pub(in crate::cases) struct Recording {
    instance: PathBuf,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cases) struct Event {
    /// The event's name, without what all names begin with: `batch_submit`, `fault` …
    pub(in crate::cases) name: String,
    fields: BTreeMap<String, String>,
}

impl Recording {
    /// Records from now on.
    pub(in crate::cases) fn start() -> Result<Self> {
        if !Path::new(ROOT).join("events").is_dir() {
            return Err(skip("this kernel has no trace events"));
        }
        let instance = Path::new(ROOT)
            .join("instances")
            .join(format!("hmm-{}", std::process::id()));
        fs::create_dir(&instance).with_context(|| format!("cannot make {}", instance.display()))?;
        let recording = Self { instance };
        recording.write("buffer_size_kb", "8192")?;
        recording.write("events/virtio_hmm/enable", "1")?;
        Ok(recording)
    }

    /// What was recorded so far, in order. Nothing may have been lost.
    pub(in crate::cases) fn events(&self) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        for line in fs::read_to_string(self.instance.join("trace"))?.lines() {
            ensure!(!line.contains("LOST"), "events were lost: {line}");
            if !line.starts_with('#') {
                events.push(parse(line).with_context(|| format!("no event: '{line}'"))?);
            }
        }
        Ok(events)
    }

    /// The events of one name.
    pub(in crate::cases) fn named(&self, name: &str) -> Result<Vec<Event>> {
        let mut events = self.events()?;
        events.retain(|event| event.name == name);
        Ok(events)
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.instance.join(file);
        fs::write(&path, text).with_context(|| format!("cannot write to {}", path.display()))
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        // The module cannot go while its events are on.
        let _ = self.write("events/enable", "0");
        let _ = fs::remove_dir(&self.instance);
    }
}

impl Event {
    /// A field as it is written.
    pub(in crate::cases) fn word(&self, field: &str) -> Result<&str> {
        self.fields
            .get(field)
            .map(String::as_str)
            .with_context(|| format!("{self:?} has no '{field}'"))
    }

    /// A field that is a number, decimal or hexadecimal.
    pub(in crate::cases) fn number(&self, field: &str) -> Result<u64> {
        number(self.word(field)?).with_context(|| format!("'{field}' of {self:?} is no number"))
    }

    /// A field that is a range of addresses.
    pub(in crate::cases) fn range(&self, field: &str) -> Result<std::ops::Range<u64>> {
        let (start, end) = self.word(field)?.split_once('-').unwrap_or_default();
        let range = number(start).zip(number(end));
        let (start, end) = range.with_context(|| format!("'{field}' of {self:?} is no range"))?;
        Ok(start..end)
    }

    /// Whether a field has this value.
    pub(in crate::cases) fn is(&self, field: &str, word: &str) -> bool {
        self.fields.get(field).is_some_and(|found| found == word)
    }
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// The event in a line such as
/// `  name-107   [001] .....     6.990933: vhmm_skip: dev=virtio0 reason=hole pages=3`.
fn parse(line: &str) -> Option<Event> {
    let (_, event) = line.split_once(": vhmm_")?;
    let (name, fields) = event.split_once(": ")?;
    let fields = fields
        .split_whitespace()
        .map(|field| {
            let (key, value) = field.split_once('=')?;
            Some((key.to_owned(), value.to_owned()))
        })
        .collect::<Option<_>>()?;
    Some(Event {
        name: name.to_owned(),
        fields,
    })
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn an_event_has_a_name_and_fields() {
        let line = "   sh: x-107  [001] .....  6.990933: vhmm_skip: dev=virtio0 reason=hole range=0x1000-0x3000 pages=2";
        let event = parse(line).unwrap();
        assert_eq!(event.name, "skip");
        assert_eq!(event.word("reason").unwrap(), "hole");
        assert_eq!(event.number("pages").unwrap(), 2);
        assert_eq!(event.range("range").unwrap(), 0x1000..0x3000);
        assert!(event.is("dev", "virtio0") && !event.is("dev", "virtio1"));
        assert!(event.word("bytes").is_err() && event.number("reason").is_err());
    }

    #[test]
    fn other_lines_are_no_event() {
        for line in ["", "CPU:0 [LOST 12 EVENTS]", "x: vhmm_skip: dev"] {
            assert_eq!(parse(line), None, "{line}");
        }
    }
}
