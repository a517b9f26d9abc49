// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the cases of a suite give: `expected.toml` in its folder.
//!
//! All cases are listed there, so that one which vanishes is noticed. Each passes unless an exception says otherwise, and
//! an exception has a reason.

use std::fmt;

use glob::Pattern;
use hmm_vm::KernelChoice;
use serde::{Deserialize, Serialize};

/// How a case ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    /// It passed.
    Pass,
    /// It could not run, and said why.
    Skip,
    /// It failed.
    Fail,
    /// It gave no result: the program or the guest ended before.
    Lost,
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Pass => "pass",
            Self::Skip => "skip",
            Self::Fail => "fail",
            Self::Lost => "lost",
        })
    }
}

/// The kernel, as exceptions name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KernelName(String);

impl KernelName {
    /// `stock`, `debug`, or `tree` for one that the user has built.
    pub(super) fn of(choice: &KernelChoice) -> Self {
        Self(
            match choice {
                KernelChoice::Stock => "stock",
                KernelChoice::Debug => "debug",
                KernelChoice::Fixed => "fixed",
                KernelChoice::Tree(_) => "tree",
            }
            .to_owned(),
        )
    }
}

impl fmt::Display for KernelName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.0)
    }
}

/// The file as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    cases: Vec<String>,
    #[serde(default, rename = "exception")]
    exceptions: Vec<ExceptionInFile>,
    #[serde(default, rename = "splat")]
    splats: Vec<SplatInFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExceptionInFile {
    cases: String,
    kernel: Option<String>,
    side: Option<String>,
    result: OneOrMore,
    reason: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SplatInFile {
    line: String,
    kernel: Option<String>,
    side: Option<String>,
    reason: String,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(Kind),
    More(Vec<Kind>),
}

/// Why expectations make no sense.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExpectedError {
    /// There are no cases.
    #[error("expected the names of cases, found none")]
    NoCases,
    /// A name stands there twice.
    #[error("the case {0} is listed twice")]
    Twice(String),
    /// A pattern is none.
    #[error("'{pattern}': {source}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        source: glob::PatternError,
    },
    /// An exception fits no case.
    #[error("no case has a name like '{0}'")]
    Unused(String),
    /// An exception has no reason or no result.
    #[error("the exception '{0}' needs a reason and a result")]
    Empty(String),
}

/// What cases give.
#[derive(Debug)]
pub(super) struct Expected {
    cases: Vec<String>,
    exceptions: Vec<Exception>,
    splats: Vec<SplatException>,
}

#[derive(Debug)]
struct Exception {
    cases: Pattern,
    place: Place,
    results: Vec<Kind>,
    reason: String,
}

#[derive(Debug)]
struct SplatException {
    line: Pattern,
    place: Place,
}

/// Where an exception holds.
#[derive(Debug)]
struct Place {
    kernel: Option<String>,
    side: Option<String>,
}

impl Place {
    fn fits(&self, kernel: &KernelName, side: &str) -> bool {
        self.kernel.as_ref().is_none_or(|name| *name == kernel.0)
            && self.side.as_ref().is_none_or(|name| name == side)
    }
}

/// What one case gives on one side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Expectation<'a> {
    /// The results that are as expected.
    pub(super) results: &'a [Kind],
    /// Why it is not only passing.
    pub(super) reason: Option<&'a str>,
}

impl Expected {
    /// Checks the file.
    pub(super) fn new(file: File) -> Result<Self, ExpectedError> {
        let cases = file.cases;
        if cases.is_empty() {
            return Err(ExpectedError::NoCases);
        }
        if let Some((_, twice)) = (cases.iter().enumerate()).find(|(i, c)| cases[..*i].contains(c))
        {
            return Err(ExpectedError::Twice(twice.clone()));
        }
        let mut exceptions = Vec::new();
        for exception in file.exceptions {
            let results = match exception.result {
                OneOrMore::One(kind) => vec![kind],
                OneOrMore::More(kinds) => kinds,
            };
            if results.is_empty() || exception.reason.trim().is_empty() {
                return Err(ExpectedError::Empty(exception.cases));
            }
            let pattern = pattern(&exception.cases)?;
            if !cases.iter().any(|case| pattern.matches(case)) {
                return Err(ExpectedError::Unused(exception.cases));
            }
            exceptions.push(Exception {
                cases: pattern,
                place: Place {
                    kernel: exception.kernel,
                    side: exception.side,
                },
                results,
                reason: exception.reason,
            });
        }
        let mut splats = Vec::new();
        for splat in file.splats {
            if splat.reason.trim().is_empty() {
                return Err(ExpectedError::Empty(splat.line));
            }
            splats.push(SplatException {
                line: pattern(&splat.line)?,
                place: Place {
                    kernel: splat.kernel,
                    side: splat.side,
                },
            });
        }
        Ok(Self {
            cases,
            exceptions,
            splats,
        })
    }

    /// The names of all cases, or of those that contain a text, in the order of the file.
    pub(super) fn cases_with(&self, text: Option<&str>) -> Vec<&str> {
        (self.cases.iter().map(String::as_str))
            .filter(|case| text.is_none_or(|text| case.contains(text)))
            .collect()
    }

    /// Whether a case of this name is listed.
    pub(super) fn has(&self, case: &str) -> bool {
        self.cases.iter().any(|known| known == case)
    }

    /// What a case gives.
    pub(super) fn of(&self, case: &str, kernel: &KernelName, side: &str) -> Expectation<'_> {
        let exception = (self.exceptions.iter())
            .find(|exception| exception.cases.matches(case) && exception.place.fits(kernel, side));
        match exception {
            Some(exception) => Expectation {
                results: &exception.results,
                reason: Some(&exception.reason),
            },
            None => Expectation {
                results: &[Kind::Pass],
                reason: None,
            },
        }
    }

    /// Whether the kernel's log may have this line, which is one of a splat.
    pub(super) fn allows(&self, line: &str, kernel: &KernelName, side: &str) -> bool {
        (self.splats.iter()).any(|splat| splat.line.matches(line) && splat.place.fits(kernel, side))
    }
}

fn pattern(text: &str) -> Result<Pattern, ExpectedError> {
    Pattern::new(text).map_err(|source| ExpectedError::Pattern {
        pattern: text.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
cases = ["a.x", "a.y", "b.x"]
[[exception]]
cases = "a.*"
kernel = "debug"
side = "ours"
result = ["pass", "fail"]
reason = "slow"
[[exception]]
cases = "*.x"
result = "skip"
reason = "missing"
[[splat]]
line = "* BUG: known *"
side = "theirs"
reason = "known"
"#;

    fn expected(text: &str) -> Result<Expected, ExpectedError> {
        Expected::new(toml::from_str(text).unwrap())
    }

    fn kernel(choice: &KernelChoice) -> KernelName {
        KernelName::of(choice)
    }

    #[test]
    fn the_first_exception_that_fits_counts_and_all_else_passes() {
        let expected = expected(FILE).unwrap();
        let (stock, debug) = (kernel(&KernelChoice::Stock), kernel(&KernelChoice::Debug));
        let results = |case, kernel, side| expected.of(case, kernel, side).results.to_vec();
        assert_eq!(results("a.x", &debug, "ours"), [Kind::Pass, Kind::Fail]);
        assert_eq!(results("a.x", &stock, "ours"), [Kind::Skip]);
        assert_eq!(results("a.x", &debug, "theirs"), [Kind::Skip]);
        assert_eq!(results("a.y", &stock, "ours"), [Kind::Pass]);
        assert_eq!(expected.of("a.y", &stock, "ours").reason, None);
        assert_eq!(expected.of("b.x", &stock, "ours").reason, Some("missing"));
    }

    #[test]
    fn a_splat_is_allowed_where_it_is_known_only() {
        let expected = expected(FILE).unwrap();
        let debug = kernel(&KernelChoice::Debug);
        let line = "[    1.0] BUG: known thing";
        assert!(expected.allows(line, &debug, "theirs"));
        assert!(!expected.allows(line, &debug, "ours"));
        assert!(!expected.allows("[    1.0] BUG: new thing", &debug, "theirs"));
    }

    #[test]
    fn cases_are_chosen_by_a_part_of_their_names() {
        let expected = expected(FILE).unwrap();
        assert_eq!(expected.cases_with(None), ["a.x", "a.y", "b.x"]);
        assert_eq!(expected.cases_with(Some(".x")), ["a.x", "b.x"]);
        assert!(expected.cases_with(Some("z")).is_empty());
        assert!(expected.has("a.x") && !expected.has("a"));
    }

    #[test]
    fn expectations_that_make_no_sense_are_refused() {
        let change = |from: &str, to: &str| expected(&FILE.replace(from, to)).unwrap_err();
        assert!(matches!(change("a.y", "a.x"), ExpectedError::Twice(_)));
        assert!(matches!(change("*.x", "*.z"), ExpectedError::Unused(_)));
        assert!(matches!(change("slow", " "), ExpectedError::Empty(_)));
        assert!(matches!(
            change("a.*", "a.["),
            ExpectedError::Pattern { .. }
        ));
        assert!(matches!(
            change("[\"pass\", \"fail\"]", "[]"),
            ExpectedError::Empty(_)
        ));
        assert!(matches!(
            expected("cases = []").unwrap_err(),
            ExpectedError::NoCases
        ));
    }

    #[test]
    fn hmm_tests_have_39_cases_for_each_kind_of_device_memory() {
        let expected = expected(include_str!("../../../suites/hmm-tests/expected.toml")).unwrap();
        let stock = kernel(&KernelChoice::Stock);
        let passing = (expected.cases_with(None).into_iter())
            .filter(|case| expected.of(case, &stock, "virtio-hmm").results == [Kind::Pass])
            .count();
        assert_eq!(expected.cases_with(None).len(), 78);
        assert_eq!(expected.cases_with(Some("device_private")).len(), 39);
        assert_eq!(passing, 38);
    }
}
