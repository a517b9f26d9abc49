// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Why tests failed, to be said once more at the very end: a test program says it in the middle of a long run, and where
//! that is kept, often only its end is.

use std::fmt;
use std::mem;

/// Of what a test says, so many lines of the beginning and of the end are repeated.
const LINES: usize = 40;
/// So few lines are repeated rather than said to be those of the test before.
const FEW: usize = 2;

/// Where in the output of a test program a line is.
#[derive(Clone, Debug, Default)]
enum Part {
    #[default]
    Results,
    Reports,
    Names,
}

/// What failed tests said, as the test programs report it after their results.
#[derive(Clone, Debug, Default)]
pub(crate) struct Failures {
    part: Part,
    /// One a test, with the line that names it.
    reports: Vec<Vec<String>>,
}

impl Failures {
    /// Looks at a line of a test program.
    pub(crate) fn line(&mut self, line: &str) {
        if line.contains("test result: ") {
            self.part = Part::Results;
            return;
        }
        self.part = match (mem::take(&mut self.part), line) {
            (Part::Results, "failures:") => Part::Reports,
            (Part::Reports, "failures:") => Part::Names,
            (Part::Reports, line) => {
                self.report(line);
                Part::Reports
            }
            (part, _) => part,
        };
    }

    /// Keeps a line of a report.
    fn report(&mut self, line: &str) {
        if line.starts_with("---- ") && line.ends_with(" ----") {
            self.reports.push(Vec::new());
        }
        if let Some(report) = self.reports.last_mut() {
            report.push(line.to_owned());
        }
    }

    /// What the test of this name said.
    pub(crate) fn of(&self, name: &str) -> Option<String> {
        let heading = format!("---- {name} ");
        let report = (self.reports.iter()).find(|report| {
            report
                .first()
                .is_some_and(|line| line.starts_with(&heading))
        })?;
        Some(report[1..].join("\n"))
    }

    /// Adds what the tests of another program said.
    pub(crate) fn extend(&mut self, other: &Self) {
        self.reports.extend(other.reports.iter().cloned());
    }

    /// No test said anything.
    pub(crate) fn is_empty(&self) -> bool {
        self.reports.is_empty()
    }
}

/// How many lines both end with.
fn common_end(one: &[String], other: &[String]) -> usize {
    let pairs = one.iter().rev().zip(other.iter().rev());
    pairs.take_while(|(one, other)| one == other).count()
}

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "why tests failed, once more:")?;
        let mut before: &[String] = &[];
        for report in &self.reports {
            let end = report.iter().rposition(|line| !line.is_empty());
            let report = &report[..end.map_or(0, |end| end + 1)];
            let same = Some(common_end(report, before)).filter(|same| *same > FEW);
            let own = &report[..report.len() - same.unwrap_or(0)];
            let left_out = own.len().saturating_sub(2 * LINES);
            writeln!(f)?;
            for (number, line) in own.iter().enumerate() {
                match number {
                    LINES if left_out > 0 => writeln!(f, "({left_out} lines more)")?,
                    _ if (LINES..LINES + left_out).contains(&number) => {}
                    _ => writeln!(f, "{line}")?,
                }
            }
            if let Some(same) = same {
                writeln!(f, "({same} lines as above)")?;
            }
            before = report;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Failures, LINES};

    fn read(text: &str) -> Failures {
        let mut failures = Failures::default();
        text.lines().for_each(|line| failures.line(line));
        failures
    }

    /// What test programs print.
    fn program(reports: &[(&str, &str)]) -> String {
        let mut text = "running 9 tests\ntest a ... FAILED\n\nfailures:\n\n".to_owned();
        for (name, report) in reports {
            text += &format!("---- {name} ----\n{report}\n\n");
        }
        text += "\nfailures:\n";
        for (name, _) in reports {
            text += &format!("    {name}\n");
        }
        text + "\ntest result: FAILED. 8 passed; 1 failed; 0 ignored\n\n"
    }

    #[test]
    fn who_passes_says_nothing() {
        let failures = read("running 1 test\ntest a ... ok\n\ntest result: ok. 1 passed\n");
        assert!(failures.is_empty());
    }

    #[test]
    fn what_is_said_is_said_again() {
        let text = program(&[("a", "why a"), ("b stdout", "why b\nand more")]);
        let failures = read(&(text + "test c ... ok\n" + &program(&[("d", "why d")])));
        assert!(!failures.is_empty());
        let again = failures.to_string();
        let expected =
            "\n---- a ----\nwhy a\n\n---- b stdout ----\nwhy b\nand more\n\n---- d ----\nwhy d\n";
        assert_eq!(again.split_once(':').unwrap().1, format!("\n{expected}"));
    }

    #[test]
    fn what_several_say_is_said_once() {
        let panic = "the guest's kernel panicked\none\ntwo";
        let text = program(&[
            ("a", &format!("ended in this case\n{panic}")),
            ("b", &format!("did not run\n{panic}")),
            ("c", &format!("did not run\n{panic}")),
        ]);
        let again = read(&text).to_string();
        assert_eq!(again.matches(panic).count(), 1);
        assert!(again.contains("---- b ----\ndid not run\n(3 lines as above)\n"));
        assert!(again.contains("---- c ----\n(4 lines as above)\n"));
    }

    #[test]
    fn the_middle_of_a_long_report_is_left_out() {
        let long: Vec<String> = (0..3 * LINES).map(|line| format!("line {line}")).collect();
        let again = read(&program(&[("a", &long.join("\n"))])).to_string();
        assert!(again.contains("---- a ----\nline 0\n"));
        assert!(again.contains(&format!("\n({} lines more)\n", LINES + 1)));
        assert!(again.ends_with(&format!("line {}\n", 3 * LINES - 1)));
        assert_eq!(again.lines().count(), 2 * LINES + 3);
    }
}
