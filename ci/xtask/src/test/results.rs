// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The results that a test program prints, one a line.

/// How a test ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// `ok`.
    Passed,
    /// `FAILED`.
    Failed,
    /// `ignored`, with the reason if there is one.
    Skipped(String),
}

/// The result of one test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TestResult {
    /// The test's name.
    pub(crate) name: String,
    /// How it ended.
    pub(crate) outcome: Outcome,
}

impl TestResult {
    /// Reads `test NAME ... ok`, `test NAME ... FAILED` or `test NAME ... ignored, REASON`; `None` for any other line.
    pub(crate) fn of_line(line: &str) -> Option<Self> {
        let line = plain(line);
        let (name, outcome) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
        let outcome = match outcome.trim_end() {
            "ok" => Outcome::Passed,
            "FAILED" => Outcome::Failed,
            other => {
                let reason = other.strip_prefix("ignored")?;
                Outcome::Skipped(reason.trim_start_matches(", ").to_owned())
            }
        };
        Some(Self {
            // Names may be padded.
            name: name.trim_end().to_owned(),
            outcome,
        })
    }
}

/// The line without colours.
fn plain(line: &str) -> String {
    let mut parts = line.split("\u{1b}[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain.push_str(part.split_once('m').map_or(part, |(_, text)| text));
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::{Outcome, TestResult};

    #[test]
    fn results_have_a_name_and_an_outcome() {
        let of = |line| TestResult::of_line(line).map(|result| (result.name, result.outcome));
        let some = |name: &str, outcome| Some((name.to_owned(), outcome));
        assert_eq!(of("test a::b ... ok"), some("a::b", Outcome::Passed));
        assert_eq!(
            of("test debug/a/b      ... FAILED"),
            some("debug/a/b", Outcome::Failed)
        );
        assert_eq!(
            of("test a ... ignored, no swap"),
            some("a", Outcome::Skipped("no swap".to_owned()))
        );
        assert_eq!(
            of("test a ... ignored"),
            some("a", Outcome::Skipped(String::new()))
        );
        let coloured = "test a ... \u{1b}[32mok\u{1b}[0m";
        assert_eq!(of(coloured), some("a", Outcome::Passed));
        for none in [
            "",
            "test result: ok. 3 passed",
            "test a ... ",
            "ok",
            "test a ... okay",
        ] {
            assert_eq!(of(none), None, "{none}");
        }
    }
}
