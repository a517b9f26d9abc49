// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the command tells: all results side by side, and those that are not as expected with what was printed.

use std::fmt;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use anyhow::Context;
use hmm_report::html::{Part, Results, Row, State};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};
use serde_json::json;

use super::expected::Kind;
use super::judgement::{Count, JudgedCase, JudgedSide, Judgement};

/// The results of one kernel side by side, and what is wrong.
pub(super) struct Table<'a>(pub(super) &'a Judgement);

/// So many of the last lines before a result are repeated.
const REMARKS: usize = 20;

impl fmt::Display for Table<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(judgement) = self;
        let title = format!("Linux {} ({})", judgement.release, judgement.kernel);
        let cases = judgement.sides.first().map_or(&[][..], |side| &side.cases);
        let width = (cases.iter())
            .map(|case| case.name.len())
            .chain([title.len()])
            .max()
            .unwrap_or_default();
        write!(formatter, "{title:width$}")?;
        for side in &judgement.sides {
            write!(formatter, "  {:>10}", side.name)?;
        }
        writeln!(formatter)?;
        for (index, case) in cases.iter().enumerate() {
            write!(formatter, "{:width$}", case.name)?;
            for side in &judgement.sides {
                let case = &side.cases[index];
                let mark = if case.is_expected { ' ' } else { '!' };
                write!(formatter, "  {:>9}{mark}", case.result)?;
            }
            writeln!(formatter)?;
        }
        for side in &judgement.sides {
            writeln!(formatter, "{}: {}", side.name, side.count())?;
            if let Some(moved) = &side.moved {
                writeln!(formatter, "{}: {moved}", side.name)?;
            }
        }
        for side in &judgement.sides {
            for problem in problems(side) {
                writeln!(formatter, "\n{}, {problem}", side.name)?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Count {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            pass,
            skip,
            fail,
            lost,
        } = self;
        write!(
            formatter,
            "{pass} passed, {fail} failed, {skip} skipped, {lost} lost"
        )
    }
}

/// What is not as expected on a side, each as a text for a person.
fn problems(side: &JudgedSide) -> Vec<String> {
    let unexpected = side.cases.iter().filter(|case| !case.is_expected);
    let mut problems: Vec<String> = unexpected
        .map(|case| {
            let skipped = case.remarks.len().saturating_sub(REMARKS);
            let mut text = explanation(case);
            for remark in &case.remarks[skipped..] {
                text.push_str("\n    ");
                text.push_str(remark);
            }
            text
        })
        .collect();
    problems.extend((side.problems.iter()).map(|problem| format!("the run as a whole: {problem}")));
    if !problems.is_empty() {
        problems.push(format!(
            "everything it printed: {}; logs: {}",
            side.log, side.folder
        ));
    }
    problems
}

/// A result that is not as expected, in one line.
fn explanation(case: &JudgedCase) -> String {
    let mut text = format!("{}: {}", case.name, case.result);
    if !case.diagnostic.is_empty() {
        text.push_str(&format!(" ({})", case.diagnostic));
    }
    let expected: Vec<_> = case.expected.iter().map(ToString::to_string).collect();
    match expected.is_empty() {
        true => text.push_str(", and the file of expected results does not list it"),
        false => text.push_str(&format!(", expected {}", expected.join(" or "))),
    }
    text
}

/// Writes JUnit's XML: a suite for each kernel and side.
///
/// # Errors
/// When the file cannot be written.
pub(super) fn junit(path: &Path, name: &str, judgements: &[Judgement]) -> anyhow::Result<()> {
    let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    junit_report(name, judgements)
        .serialize(BufWriter::new(file))
        .with_context(|| format!("cannot write {}", path.display()))
}

fn junit_report(name: &str, judgements: &[Judgement]) -> Report {
    let mut report = Report::new(format!("virtio-hmm, {name}"));
    for judgement in judgements {
        for side in &judgement.sides {
            let title = format!("{name}, {}, {}", judgement.kernel, side.name);
            let mut suite = TestSuite::new(&*title);
            for case in &side.cases {
                let mut test = TestCase::new(&*case.name, status(case));
                test.set_classname(&*title);
                suite.add_test_case(test);
            }
            if !side.problems.is_empty() {
                let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
                status.set_description(side.problems.join("\n"));
                suite.add_test_case(TestCase::new("(the run as a whole)", status));
            }
            report.add_test_suite(suite);
        }
    }
    report
}

fn status(case: &JudgedCase) -> TestCaseStatus {
    match (case.is_expected, case.result) {
        (true, Kind::Pass) => TestCaseStatus::success(),
        (true, result) => {
            let mut status = TestCaseStatus::skipped();
            let reason = case.reason.as_deref().unwrap_or_default();
            status.set_message(format!("{result}, as expected: {reason}"));
            status
        }
        (false, _) => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status.set_message(explanation(case));
            status.set_description(case.remarks.join("\n"));
            status
        }
    }
}

/// All results as a table of a report, in which those that are not as expected are bad.
pub(super) fn results(judgements: &[Judgement], parts: &[Part]) -> Results {
    let rows = judgements.iter().flat_map(|judgement| {
        judgement.sides.iter().flat_map(move |side| {
            let of = format!("{} kernel, {}", judgement.kernel, side.name);
            let part = parts.iter().position(|part| part.name.ends_with(&of));
            let cases = side.cases.iter().map({
                let of = of.clone();
                move |case| Row {
                    cells: vec![case.name.clone(), of.clone(), case.result.to_string()],
                    state: match (case.is_expected, case.result) {
                        (false, _) => State::Bad,
                        (true, Kind::Pass) => State::Good,
                        (true, _) => State::Other,
                    },
                    text: match (case.is_expected, &case.reason) {
                        (false, _) => format!("{}\n{}", explanation(case), case.remarks.join("\n")),
                        (true, reason) => reason.clone().unwrap_or_default(),
                    },
                    part,
                    case: None,
                }
            });
            let whole = side.problems.iter().map(move |problem| Row {
                cells: vec![
                    "(the run as a whole)".to_owned(),
                    of.clone(),
                    "failed".to_owned(),
                ],
                state: State::Bad,
                text: problem.clone(),
                part,
                case: None,
            });
            cases.chain(whole)
        })
    });
    Results {
        heads: ["case", "on", "result"].map(str::to_owned).to_vec(),
        rows: rows.collect(),
    }
}

/// Writes all results as JSON.
///
/// # Errors
/// When the file cannot be written.
pub(super) fn json(path: &Path, name: &str, judgements: &[Judgement]) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(&json!({"suite": name, "kernels": judgements}))?;
    std::fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::super::judgement::tests::{GUP, READ, judged};
    use super::{Table, junit_report};

    #[test]
    fn both_sides_stand_beside_each_other_and_what_is_wrong_below() {
        let ours = format!("1..2\n# why it failed\nnot ok 1 {READ}\nok 2 {GUP} # SKIP no driver\n");
        let theirs = format!("1..2\nok 1 {READ}\nok 2 {GUP} # SKIP no driver\n");
        let text = Table(&judged(&ours, &theirs, &[READ, GUP])).to_string();
        let line = text.lines().find(|line| line.starts_with(READ)).unwrap();
        assert_eq!(
            line.split_whitespace().skip(1).collect::<Vec<_>>(),
            ["fail!", "pass"]
        );
        assert!(
            text.contains("virtio-hmm: 0 passed, 1 failed, 1 skipped, 0 lost"),
            "{text}"
        );
        assert!(
            text.contains("fail, expected pass\n    # why it failed"),
            "{text}"
        );
        assert!(text.contains("all.log"), "{text}");
        let good = Table(&judged(&theirs, &theirs, &[READ, GUP])).to_string();
        assert!(!good.contains('!') && !good.contains("all.log"), "{good}");
    }

    #[test]
    fn junit_has_a_failure_for_what_is_not_as_expected_only() {
        let ours = format!("1..1\nnot ok 1 {READ}\n");
        let theirs = format!("1..2\nok 1 {READ}\nok 2 {GUP} # SKIP no driver\n");
        let text = junit_report("hmm-tests", &[judged(&ours, &theirs, &[READ, GUP])])
            .to_string()
            .unwrap();
        assert!(
            text.contains(r#"tests="4" skipped="1" failures="2""#),
            "{text}"
        );
        assert!(text.contains("hmm-tests, stock, test_hmm"), "{text}");
        assert!(text.contains("skip, as expected: Debian builds"), "{text}");
    }
}
