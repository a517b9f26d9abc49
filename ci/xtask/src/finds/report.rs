// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the command tells.

use std::fmt;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use anyhow::Context;
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::verdict::{Judged, Seen, Verdict};

/// All finds, each with what was seen.
pub(super) struct Table<'a>(pub(super) &'a Verdict);

impl fmt::Display for Table<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(verdict) = self;
        let sides = ["without", "with"];
        for (side, release) in sides.iter().zip(&verdict.releases) {
            writeln!(formatter, "{side:7} Linux {release}")?;
        }
        for find in &verdict.finds {
            writeln!(
                formatter,
                "{:24} {}  {}",
                find.name,
                find.patch,
                words(find).join(", ")
            )?;
            let seen = [Some(&find.without), find.with.as_ref()];
            for (side, seen) in sides.iter().zip(seen) {
                if let Some(seen) = seen {
                    writeln!(formatter, "    {side:7} {}", seen.text())?;
                }
            }
        }
        for problem in &verdict.problems {
            writeln!(formatter, "the patched kernel's log, {problem}")?;
        }
        let good = verdict.finds.iter().filter(|find| find.is_good()).count();
        let what = match verdict.releases.len() {
            1 => "reproduced",
            _ => "reproduced and fixed",
        };
        write!(formatter, "{good} of {} {what}", verdict.finds.len())
    }
}

/// The find in two words.
fn words(find: &Judged) -> Vec<&'static str> {
    let mut words = vec![match &find.without {
        Seen::Fault(_) => "reproduced",
        Seen::Right(_) => "NOT REPRODUCED",
        Seen::Cannot(_) => "NOT TRIED",
        Seen::Broken(_) => "BROKEN",
    }];
    words.extend(find.with.as_ref().map(|seen| match seen {
        Seen::Fault(_) => "NOT FIXED",
        Seen::Right(_) => "fixed",
        Seen::Cannot(_) => "NOT TRIED",
        Seen::Broken(_) => "BROKEN",
    }));
    words
}

/// Writes JUnit's XML: a case for each find, and one for the log of the patched kernel.
///
/// # Errors
/// When the file cannot be written.
pub(super) fn junit(path: &Path, verdict: &Verdict) -> anyhow::Result<()> {
    let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    junit_report(verdict)
        .serialize(BufWriter::new(file))
        .with_context(|| format!("cannot write {}", path.display()))
}

fn junit_report(verdict: &Verdict) -> Report {
    let mut suite = TestSuite::new("finds");
    let status = |failures: &[String]| match failures.is_empty() {
        true => TestCaseStatus::success(),
        false => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status.set_message(failures.join("\n"));
            status
        }
    };
    suite.add_test_cases(verdict.finds.iter().map(|find| {
        let mut failures = Vec::new();
        if !find.is_good() {
            failures.push(words(find).join(", "));
            failures.push(format!("without: {}", find.without.text()));
            failures.extend((find.with.iter()).map(|seen| format!("with: {}", seen.text())));
        }
        TestCase::new(&*find.name, status(&failures))
    }));
    suite.add_test_case(TestCase::new(
        "(the patched kernel's log)",
        status(&verdict.problems),
    ));
    let mut report = Report::new("finds");
    report.add_test_suite(suite);
    report
}

/// Writes JSON.
///
/// # Errors
/// When the file cannot be written.
pub(super) fn json(path: &Path, verdict: &Verdict) -> anyhow::Result<()> {
    let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    serde_json::to_writer_pretty(BufWriter::new(file), verdict)
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::super::verdict::tests::{fault, right, verdict};
    use super::*;

    #[test]
    fn the_table_says_of_each_find_whether_it_is_reproduced_and_fixed() {
        let verdict = verdict(&[(fault(), right()), (right(), fault())], &[]);
        let text = Table(&verdict).to_string();
        let good = format!("{:24} 0001  reproduced, fixed\n", "a");
        let bad = format!("{:24} 0001  NOT REPRODUCED, NOT FIXED\n", "b");
        assert!(text.contains(&good) && text.contains(&bad), "{text}");
        assert!(
            text.contains("    without 64 lost\n    with    none lost\n"),
            "{text}"
        );
        assert!(text.ends_with("\n1 of 2 reproduced and fixed"), "{text}");
    }

    #[test]
    fn problems_of_the_patched_kernel_are_told() {
        let verdict = verdict(&[(fault(), right())], &["line 5: WARNING"]);
        assert!(Table(&verdict).to_string().contains("line 5: WARNING"));
        let junit = junit_report(&verdict).to_string().unwrap();
        assert!(
            junit.contains("failures=\"1\"") && junit.contains("line 5"),
            "{junit}"
        );
    }

    #[test]
    fn reports_have_each_find() {
        let verdict = verdict(&[(fault(), right()), (fault(), fault())], &[]);
        let junit = junit_report(&verdict).to_string().unwrap();
        assert!(
            junit.contains("tests=\"3\"") && junit.contains("NOT FIXED"),
            "{junit}"
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        json(file.path(), &verdict).unwrap();
        let value: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(file.path()).unwrap()).unwrap();
        assert_eq!(value["finds"][1]["with"]["seen"], "fault");
        assert_eq!(value["finds"][0]["with"]["text"], "none lost");
    }
}
