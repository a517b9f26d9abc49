// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! All results in the form that CI services read: JUnit's XML.

use std::collections::HashMap;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use hmm_tests::timing::Timing;
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::failures::Failures;
use super::program::Ran;
use super::results::{Outcome, TestResult};

/// Writes the report. The folder must exist.
pub(crate) fn write(path: &Path, programs: &[Ran], timings: &[Timing]) -> anyhow::Result<()> {
    let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    report(programs, timings)
        .serialize(BufWriter::new(file))
        .with_context(|| format!("cannot write {}", path.display()))
}

fn report(programs: &[Ran], timings: &[Timing]) -> Report {
    let seconds: HashMap<&str, f64> = (timings.iter())
        .map(|timing| (timing.name.as_str(), timing.seconds))
        .collect();
    let mut report = Report::new("virtio-hmm");
    report.add_test_suites(programs.iter().map(|ran| {
        let mut suite = TestSuite::new(&*ran.name);
        suite.set_time(ran.time);
        suite.add_test_cases(ran.results.iter().map(|result| {
            let mut case = case(result, &ran.failures);
            case.set_classname(&*ran.name);
            if let Some(&seconds) = seconds.get(&*result.name) {
                // The file is our own, but a number in it may still be none that is a time.
                case.set_time(Duration::try_from_secs_f64(seconds).unwrap_or_default());
            }
            case
        }));
        let seen = ran
            .results
            .iter()
            .filter(|result| result.outcome == Outcome::Failed)
            .count();
        if (seen as u64) < ran.tally.failed {
            // It died, or its output makes no sense.
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
            status.set_message("more failed than tests have said so; see the output");
            suite.add_test_case(TestCase::new("(the program as a whole)", status));
        }
        suite
    }));
    report
}

fn case(result: &TestResult, failures: &Failures) -> TestCase {
    let status = match &result.outcome {
        Outcome::Passed => TestCaseStatus::success(),
        Outcome::Skipped(reason) => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(reason.as_str());
            status
        }
        Outcome::Failed => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            if let Some(report) = failures.of(&result.name) {
                status.set_description(report);
            }
            status
        }
    };
    TestCase::new(&*result.name, status)
}

#[cfg(test)]
mod tests {
    use super::report;
    use crate::test::program::Ran;
    use hmm_tests::timing::Timing;

    #[test]
    fn each_result_is_a_case_and_a_failure_has_its_text() {
        let mut ran = Ran::new("guest, debug");
        for line in [
            "test debug/a ... ok",
            "test debug/b ... FAILED",
            "test debug/c ... ignored, no <swap>",
            "failures:",
            "---- debug/b ----",
            "page 5 & <6>",
            "failures:",
            "    debug/b",
            "test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured",
        ] {
            ran.line(line);
        }
        let timing = Timing {
            name: "debug/a".to_owned(),
            seconds: 2.5,
            busy: None,
        };
        let text = report(&[ran.clone()], &[timing]).to_string().unwrap();
        assert!(
            text.contains(r#"tests="3" skipped="1" failures="1" errors="0""#),
            "{text}"
        );
        assert!(
            text.contains(r#"name="debug/a" classname="guest, debug" time="2.500""#),
            "{text}"
        );
        assert!(text.contains("page 5 &amp; &lt;6&gt;"), "{text}");
        assert!(text.contains("no &lt;swap&gt;"), "{text}");
        // One that died is an error.
        ran.tally.failed += 1;
        let text = report(&[ran], &[]).to_string().unwrap();
        assert!(text.contains(r#"failures="1" errors="1""#), "{text}");
    }
}
