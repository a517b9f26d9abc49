// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Reads results in the kernel's test format, KTAP version 1, line by line as they come.

/// How a case ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// `ok`.
    Passed,
    /// `ok … # SKIP`, with the reason.
    Skipped(String),
    /// `not ok`.
    Failed,
    /// `not ok … # TIMEOUT`.
    TimedOut,
}

/// The result of one case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaseResult {
    /// Its name.
    pub name: String,
    /// How it ended.
    pub outcome: Outcome,
    /// What it said.
    pub remarks: Vec<String>,
}

/// Why results are not to be trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KtapError {
    /// The first line is not the version.
    #[error("expected 'KTAP version 1' first, found '{0}'")]
    NoVersion(String),
    /// There is no plan.
    #[error("there is no plan: the guest did not say how many results to expect")]
    NoPlan,
    /// There is more than one plan.
    #[error("there is a second plan, '{0}'")]
    SecondPlan(String),
    /// A result without a plan before it, or more results than planned.
    #[error("'{0}' was not planned")]
    Unplanned(String),
    /// Results are missing.
    #[error("{found} of {planned} planned results came{}", in_case(.in_flight))]
    Incomplete {
        /// Planned results.
        planned: usize,
        /// Results that came.
        found: usize,
        /// The case that had started and has no result.
        in_flight: Option<String>,
    },
    /// A result's number is not the next one.
    #[error("expected result {expected}, found '{line}'")]
    Order {
        /// The number that was expected.
        expected: usize,
        /// The line.
        line: String,
    },
    /// The same name came twice.
    #[error("there are two results of {0}")]
    Twice(String),
    /// The guest gave up.
    #[error("the guest gave up: {0}")]
    BailedOut(String),
    /// A line that has no place here.
    #[error("no line of KTAP: '{0}'")]
    Unknown(String),
}

fn in_case(in_flight: &Option<String>) -> String {
    match in_flight {
        Some(name) => format!("; it ended in {name}"),
        None => String::new(),
    }
}

/// A reader of results.
#[derive(Debug, Default)]
pub struct Reader {
    version: bool,
    plan: Option<usize>,
    results: Vec<CaseResult>,
    in_flight: Option<String>,
    remarks: Vec<String>,
}

impl Reader {
    /// The results so far.
    pub fn results(&self) -> &[CaseResult] {
        &self.results
    }

    /// The case that has started and has no result yet.
    pub fn in_flight(&self) -> Option<&str> {
        self.in_flight.as_deref()
    }

    /// What the case in flight has said.
    pub fn remarks(&self) -> &[String] {
        &self.remarks
    }

    /// Takes a line; the result, if it is one.
    ///
    /// # Errors
    /// When the line has no place here. The results so far stay.
    pub fn line(&mut self, line: &str) -> Result<Option<&CaseResult>, KtapError> {
        let line = line.trim_end();
        if !self.version {
            if line != "KTAP version 1" {
                return Err(KtapError::NoVersion(line.to_owned()));
            }
            self.version = true;
            return Ok(None);
        }
        if line.is_empty() {
            return Ok(None);
        }
        if let Some(remark) = line.strip_prefix('#') {
            self.remark(remark.trim());
            return Ok(None);
        }
        if let Some(reason) = line.strip_prefix("Bail out!") {
            return Err(KtapError::BailedOut(reason.trim().to_owned()));
        }
        if let Some(count) = line.strip_prefix("1..") {
            let count = count
                .parse()
                .map_err(|_| KtapError::Unknown(line.to_owned()))?;
            if self.plan.replace(count).is_some() {
                return Err(KtapError::SecondPlan(line.to_owned()));
            }
            return Ok(None);
        }
        self.result(line).map(Some)
    }

    fn remark(&mut self, remark: &str) {
        if let Some(name) = remark.strip_prefix("start ") {
            self.in_flight = Some(name.to_owned());
            self.remarks.clear();
        } else {
            self.remarks.push(remark.to_owned());
        }
    }

    fn result(&mut self, line: &str) -> Result<&CaseResult, KtapError> {
        let unknown = || KtapError::Unknown(line.to_owned());
        let (ok, rest) = match line.strip_prefix("not ok ") {
            Some(rest) => (false, rest),
            None => (true, line.strip_prefix("ok ").ok_or_else(unknown)?),
        };
        let expected = self.results.len() + 1;
        if self.plan.is_none_or(|planned| expected > planned) {
            return Err(KtapError::Unplanned(line.to_owned()));
        }
        let (number, rest) = rest.split_once(' ').ok_or_else(unknown)?;
        if number.parse() != Ok(expected) {
            return Err(KtapError::Order {
                expected,
                line: line.to_owned(),
            });
        }
        let (name, directive) = match rest.split_once(" # ") {
            Some((name, directive)) => (name, directive),
            None => (rest, ""),
        };
        let outcome = match (ok, directive.split_once(' ').unwrap_or((directive, ""))) {
            (true, ("", _)) => Outcome::Passed,
            (false, ("", _)) => Outcome::Failed,
            (true, ("SKIP", reason)) => Outcome::Skipped(reason.to_owned()),
            (false, ("TIMEOUT", _)) => Outcome::TimedOut,
            _ => return Err(unknown()),
        };
        if self.results.iter().any(|result| result.name == name) {
            return Err(KtapError::Twice(name.to_owned()));
        }
        self.in_flight = None;
        self.results.push(CaseResult {
            name: name.to_owned(),
            outcome,
            remarks: std::mem::take(&mut self.remarks),
        });
        self.results.last().ok_or_else(unknown)
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// Unless every planned result came.
    pub fn end(&self) -> Result<(), KtapError> {
        let planned = self.plan.ok_or(KtapError::NoPlan)?;
        if self.results.len() == planned {
            return Ok(());
        }
        Err(KtapError::Incomplete {
            planned,
            found: self.results.len(),
            in_flight: self.in_flight.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{CaseResult, KtapError, Outcome, Reader};

    /// Reads a text to its end or to the first error.
    fn read(text: &str) -> (Reader, Result<(), KtapError>) {
        let mut reader = Reader::default();
        for line in text.lines() {
            if let Err(error) = reader.line(line) {
                return (reader, Err(error));
            }
        }
        let end = reader.end();
        (reader, end)
    }

    #[test]
    fn every_outcome_is_understood() {
        let (reader, end) = read(
            "KTAP version 1\n\
             1..4\n\
             # start group/one\n\
             #   0.1 s\n\
             ok 1 group/one\n\
             # start group/two\n\
             #   page 3: expected 1, found 2\n\
             not ok 2 group/two\n\
             ok 3 group/three # SKIP this machine has one device\n\
             not ok 4 group/four # TIMEOUT\n",
        );
        assert_eq!(end, Ok(()));
        let result = |name: &str, outcome, remarks: &[&str]| CaseResult {
            name: name.to_owned(),
            outcome,
            remarks: remarks.iter().map(|&remark| remark.to_owned()).collect(),
        };
        assert_eq!(
            reader.results(),
            [
                result("group/one", Outcome::Passed, &["0.1 s"]),
                result(
                    "group/two",
                    Outcome::Failed,
                    &["page 3: expected 1, found 2"]
                ),
                result(
                    "group/three",
                    Outcome::Skipped("this machine has one device".to_owned()),
                    &[]
                ),
                result("group/four", Outcome::TimedOut, &[]),
            ]
        );
    }

    #[test]
    fn nothing_at_all_is_an_error() {
        assert_eq!(read("").1, Err(KtapError::NoPlan));
        assert_eq!(read("KTAP version 1\n").1, Err(KtapError::NoPlan));
        assert_eq!(
            read("TAP version 13\n1..1\nok 1 a\n").1,
            Err(KtapError::NoVersion("TAP version 13".to_owned()))
        );
    }

    #[test]
    fn a_crash_leaves_the_results_so_far_and_names_the_case() {
        let (reader, end) = read("KTAP version 1\n1..3\nok 1 a\n# start b\n#   half way\n");
        assert_eq!(reader.results().len(), 1);
        assert_eq!(reader.in_flight(), Some("b"));
        assert_eq!(reader.remarks(), ["half way"]);
        assert_eq!(
            end,
            Err(KtapError::Incomplete {
                planned: 3,
                found: 1,
                in_flight: Some("b".to_owned())
            })
        );
    }

    #[test]
    fn a_second_plan_is_an_error() {
        assert_eq!(
            read("KTAP version 1\n1..1\nok 1 a\n1..1\n").1,
            Err(KtapError::SecondPlan("1..1".to_owned()))
        );
    }

    #[test]
    fn results_that_were_not_planned_are_errors() {
        for text in [
            "KTAP version 1\nok 1 a\n",
            "KTAP version 1\n1..1\nok 1 a\nok 2 b\n",
            "KTAP version 1\n1..0\nok 1 a\n",
        ] {
            assert!(
                matches!(read(text).1, Err(KtapError::Unplanned(_))),
                "{text}"
            );
        }
    }

    #[test]
    fn other_lines_are_errors() {
        let with = |line: &str| read(&format!("KTAP version 1\n1..2\nok 1 a\n{line}\n")).1;
        assert_eq!(
            with("ok 3 b"),
            Err(KtapError::Order {
                expected: 2,
                line: "ok 3 b".to_owned()
            })
        );
        assert_eq!(with("ok 2 a"), Err(KtapError::Twice("a".to_owned())));
        assert_eq!(
            with("Bail out! no driver"),
            Err(KtapError::BailedOut("no driver".to_owned()))
        );
        for line in [
            "ok 2 b # WHAT",
            "not ok 2 b # SKIP",
            "okay",
            "[  1.0] text",
            "ok 2",
            "1..x",
        ] {
            assert!(
                matches!(with(line), Err(KtapError::Unknown(_))),
                "{line}: {:?}",
                with(line)
            );
        }
    }
}
