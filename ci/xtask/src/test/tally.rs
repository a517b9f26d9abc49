// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Counts results of tests.

use std::fmt;
use std::ops::AddAssign;

/// How many tests ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Tests that passed.
    pub(crate) passed: u64,
    /// Tests that failed.
    pub(crate) failed: u64,
    /// Tests that could not run and said why.
    pub(crate) skipped: u64,
}

impl Tally {
    /// The counts in the closing line of a test program; zero for any other line.
    pub(crate) fn of_line(line: &str) -> Self {
        let Some((_, counts)) = line.split_once("test result: ") else {
            return Self::default();
        };
        let count = |what: &str| {
            let words: Vec<&str> = counts
                .split([' ', ';', '.'])
                .filter(|word| !word.is_empty())
                .collect();
            words
                .windows(2)
                .find(|pair| pair[1] == what)
                .and_then(|pair| pair[0].parse().ok())
                .unwrap_or(0)
        };
        Self {
            passed: count("passed"),
            failed: count("failed"),
            skipped: count("ignored"),
        }
    }

    /// All tests that were to run.
    pub(crate) fn total(self) -> u64 {
        self.passed + self.failed + self.skipped
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn the_closing_line_is_counted() {
        let line = "test result: ok. 8 passed; 0 failed; 2 ignored; 0 measured; 9 filtered out; finished in 14.21s";
        assert_eq!(
            Tally::of_line(line),
            Tally {
                passed: 8,
                failed: 0,
                skipped: 2
            }
        );
        let coloured =
            "test result: \u{1b}[31mFAILED\u{1b}[0m. 10 passed; 136 failed; 1 ignored; 0 measured";
        assert_eq!(
            Tally::of_line(coloured),
            Tally {
                passed: 10,
                failed: 136,
                skipped: 1
            }
        );
    }

    #[test]
    fn other_lines_count_nothing() {
        for line in [
            "",
            "test a::b ... ok",
            "3 passed; 4 failed",
            "running 8 tests",
        ] {
            assert_eq!(Tally::of_line(line), Tally::default(), "{line}");
        }
    }

    #[test]
    fn the_sum_is_the_last_line() {
        let mut sum = Tally::of_line("test result: ok. 3 passed; 0 failed; 0 ignored");
        sum += Tally::of_line("test result: FAILED. 4 passed; 1 failed; 2 ignored");
        assert_eq!(sum.to_string(), "7 passed, 1 failed, 2 skipped");
        assert_eq!(sum.total(), 10);
    }
}
