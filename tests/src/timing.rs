// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How long tests took. `cargo xtask test` names a file to which each guest test adds a line of JSON.

use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;

/// Where the tests look for the name of the file.
pub const VARIABLE: &str = "HMM_TIMES";

/// How long a test took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// The test's name.
    pub name: String,
    /// Seconds.
    pub seconds: f64,
    /// Which percentage of that the guest's processors were busy, where it is known.
    pub busy: Option<u8>,
}

impl Timing {
    /// Reads what the guest says of a case: `12.3 s, 45 % busy`, or `12.3 s`, alone in a remark.
    #[must_use]
    pub fn of_remarks(name: &str, remarks: &[String]) -> Option<Self> {
        // It comes last; what a case itself says may look the same.
        remarks.iter().rev().find_map(|remark| {
            let (seconds, busy) = match remark.strip_suffix(" % busy") {
                Some(text) => {
                    let (seconds, busy) = text.split_once(" s, ")?;
                    (seconds, Some(busy.parse().ok()?))
                }
                None => (remark.strip_suffix(" s")?, None),
            };
            Some(Self {
                name: name.to_owned(),
                seconds: seconds.parse().ok()?,
                busy,
            })
        })
    }
}

/// Where timings go.
#[derive(Debug, Default)]
pub struct Timings(Option<Mutex<File>>);

impl Timings {
    /// Adds to the file that the environment names; nowhere without it.
    ///
    /// # Errors
    /// When it cannot be written to.
    pub fn from_environment() -> anyhow::Result<Self> {
        std::env::var_os(VARIABLE)
            .map_or_else(|| Ok(Self::default()), |path| Self::to(path.as_ref()))
    }

    fn to(path: &Path) -> anyhow::Result<Self> {
        let file = (OpenOptions::new().append(true).create(true).open(path))
            .with_context(|| format!("cannot write to {}", path.display()))?;
        Ok(Self(Some(Mutex::new(file))))
    }

    /// Adds one. No test fails because its time is lost.
    pub fn add(&self, timing: &Timing) {
        let Some(file) = &self.0 else { return };
        if let (Ok(mut file), Ok(line)) = (file.lock(), serde_json::to_string(timing)) {
            let _ = file.write_all(format!("{line}\n").as_bytes());
        }
    }
}

/// Reads such a file. A last line that is not whole is left out: its writer was killed.
#[must_use]
pub fn read(text: &str) -> Vec<Timing> {
    let lines = text.lines().map(serde_json::from_str);
    lines.map_while(Result::ok).collect()
}

#[cfg(test)]
mod tests {
    use super::{Timing, Timings, read};

    #[test]
    fn the_guest_says_how_long_a_case_took() {
        let of = |remarks: &[&str]| {
            let remarks: Vec<String> = remarks.iter().map(|&remark| remark.to_owned()).collect();
            Timing::of_remarks("a", &remarks).map(|timing| (timing.seconds, timing.busy))
        };
        assert_eq!(
            of(&["7 processes", "12.3 s, 45 % busy"]),
            Some((12.3, Some(45)))
        );
        assert_eq!(of(&["12.3 s", "not clean"]), Some((12.3, None)));
        assert_eq!(of(&["1.0 s", "2.0 s, 5 % busy"]), Some((2.0, Some(5))));
        for none in ["", "12.3", "x s", "12.3 s, y % busy", "1 % busy"] {
            assert_eq!(of(&[none]), None, "{none}");
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("times");
        let timings = [(1.5, Some(99)), (0.0, None)].map(|(seconds, busy)| Timing {
            name: "debug/a\"b".to_owned(),
            seconds,
            busy,
        });
        // Two programs, one after the other.
        for timing in &timings {
            Timings::to(&path).unwrap().add(timing);
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(read(&text), timings);
        assert_eq!(read(&text[..text.len() - 3]), timings[..1]);
        Timings::default().add(&timings[0]);
    }
}
