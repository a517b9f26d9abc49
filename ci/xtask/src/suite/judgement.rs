// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Compares what the cases gave with what was expected.

use serde::Serialize;

use super::declaration::Suite;
use super::expected::{Expected, KernelName, Kind};
use super::moved::Moved;
use super::side::SideRun;
use super::tap::CaseResult;

/// All cases of a suite on one kernel.
#[derive(Debug, Serialize)]
pub(super) struct Judgement {
    /// The kernel as the command names it, and its release.
    pub(super) kernel: String,
    pub(super) release: String,
    pub(super) sides: Vec<JudgedSide>,
}

/// All cases on one side, in the same order on each.
#[derive(Debug, Serialize)]
pub(super) struct JudgedSide {
    pub(super) name: String,
    pub(super) cases: Vec<JudgedCase>,
    /// What was moved meanwhile, on a side that moves memory.
    pub(super) moved: Option<Moved>,
    /// What is wrong with the run as a whole.
    pub(super) problems: Vec<String>,
    /// The file with everything that was printed.
    pub(super) log: String,
    /// The folder with the boot's logs.
    pub(super) folder: String,
}

/// One case on one side.
#[derive(Debug, Serialize)]
pub(super) struct JudgedCase {
    pub(super) name: String,
    pub(super) result: Kind,
    pub(super) is_expected: bool,
    /// Why it may give this, if it is not that everything passes.
    pub(super) reason: Option<String>,
    /// What was expected in its place; empty for a case that is not listed.
    pub(super) expected: Vec<Kind>,
    /// What the result's line says beside the result.
    pub(super) diagnostic: String,
    /// What was printed before the result.
    pub(super) remarks: Vec<String>,
}

/// How many cases gave what.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) pass: usize,
    pub(super) skip: usize,
    pub(super) fail: usize,
    pub(super) lost: usize,
}

impl Judgement {
    /// Judges the runs of all sides.
    pub(super) fn new(
        suite: &Suite,
        kernel: &KernelName,
        cases: &[&str],
        runs: &[SideRun],
    ) -> Self {
        // Cases that the file does not list may come on one side only; each side gets a line for them.
        let mut names: Vec<&str> = cases.to_vec();
        for result in runs.iter().flat_map(|run| &run.output.results) {
            if !names.contains(&result.name.as_str()) {
                names.push(&result.name);
            }
        }
        let sides = runs.iter().map(|run| JudgedSide {
            name: run.side.clone(),
            cases: names
                .iter()
                .map(|name| {
                    let results: Vec<_> = (run.output.results.iter())
                        .filter(|result| result.name == *name)
                        .collect();
                    judge(name, &results, &suite.expected, kernel, &run.side)
                })
                .collect(),
            moved: run.moved.clone(),
            problems: run.problems.clone(),
            log: run.log.display().to_string(),
            folder: run.folder.display().to_string(),
        });
        Self {
            kernel: kernel.to_string(),
            release: (runs.first()).map_or_else(String::new, |run| run.release.clone()),
            sides: sides.collect(),
        }
    }

    /// Whether all is as expected.
    pub(super) fn is_good(&self) -> bool {
        self.sides.iter().all(JudgedSide::is_good)
    }
}

fn judge(
    name: &str,
    results: &[&CaseResult],
    expected: &Expected,
    kernel: &KernelName,
    side: &str,
) -> JudgedCase {
    // Of several results the worst one counts: a case may run again and again.
    let worst = results.iter().max_by_key(|result| match result.kind {
        Kind::Pass => 0,
        Kind::Skip => 1,
        Kind::Fail | Kind::Lost => 2,
    });
    let result = worst.map_or(Kind::Lost, |result| result.kind);
    let is_listed = expected.has(name);
    let expectation = expected.of(name, kernel, side);
    JudgedCase {
        name: name.to_owned(),
        result,
        is_expected: is_listed && expectation.results.contains(&result),
        reason: (expectation.reason.filter(|_| is_listed)).map(str::to_owned),
        expected: if is_listed {
            expectation.results.to_vec()
        } else {
            Vec::new()
        },
        diagnostic: worst.map_or_else(String::new, |result| result.diagnostic.clone()),
        remarks: worst.map_or_else(Vec::new, |result| result.remarks.clone()),
    }
}

impl JudgedSide {
    /// Whether all is as expected.
    pub(super) fn is_good(&self) -> bool {
        self.problems.is_empty() && self.cases.iter().all(|case| case.is_expected)
    }

    /// How many cases gave what.
    pub(super) fn count(&self) -> Count {
        let mut count = Count::default();
        for case in &self.cases {
            *match case.result {
                Kind::Pass => &mut count.pass,
                Kind::Skip => &mut count.skip,
                Kind::Fail => &mut count.fail,
                Kind::Lost => &mut count.lost,
            } += 1;
        }
        count
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::Path;

    use hmm_vm::KernelChoice;

    use super::super::tap::Output;
    use super::*;

    /// A judgement of the suite hmm-tests with these outputs of its two sides.
    pub(in super::super) fn judged(ours: &str, theirs: &str, cases: &[&str]) -> Judgement {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../suites");
        let suite = Suite::read(&folder, "hmm-tests").unwrap();
        let run = |side: &str, text: &str| {
            let output = Output::read(text);
            SideRun {
                side: side.to_owned(),
                release: "7.3.4".to_owned(),
                problems: output.problem().into_iter().collect(),
                output,
                moved: None,
                recording: None,
                log: "all.log".into(),
                folder: "boot".into(),
            }
        };
        let runs = [run("virtio-hmm", ours), run("test_hmm", theirs)];
        Judgement::new(&suite, &KernelName::of(&KernelChoice::Stock), cases, &runs)
    }

    pub(in super::super) const READ: &str = "hmm.hmm_device_private.anon_read";
    pub(in super::super) const GUP: &str = "hmm.hmm_device_private.hmm_gup_test";

    #[test]
    fn results_are_good_when_they_are_as_listed() {
        let text = format!("1..2\nok 1 {READ}\nok 2 {GUP} # SKIP no driver\n");
        let judgement = judged(&text, &text, &[READ, GUP]);
        assert!(judgement.is_good());
        let count = judgement.sides[0].count();
        assert_eq!(
            (count.pass, count.skip, count.fail, count.lost),
            (1, 1, 0, 0)
        );
        assert!(judgement.sides[0].cases[1].reason.is_some());
    }

    #[test]
    fn a_failure_a_lost_case_and_an_unlisted_one_are_each_noticed() {
        let good = format!("1..1\nok 1 {READ}\n");
        for bad in [
            format!("1..1\nnot ok 1 {READ}\n"),
            format!("1..1\nok 1 {READ} # SKIP because\n"),
            "1..0\n".to_owned(),
            format!("1..2\nok 1 {READ}\nok 2 hmm.new\n"),
            format!("1..2\nok 1 {READ}\n"),
            format!("1..2\nok 1 {READ}\nnot ok 2 {READ}\n"),
        ] {
            assert!(!judged(&bad, &good, &[READ]).is_good(), "{bad}");
            assert!(!judged(&good, &bad, &[READ]).is_good(), "{bad}");
        }
        assert!(judged(&good, &good, &[READ]).is_good());
    }

    #[test]
    fn a_case_that_passes_where_it_should_skip_is_noticed() {
        let text = format!("1..1\nok 1 {GUP}\n");
        assert!(!judged(&text, &text, &[GUP]).is_good());
    }
}
