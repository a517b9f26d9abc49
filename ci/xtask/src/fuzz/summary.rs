// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What libFuzzer says of a run, in numbers.

use std::fmt;

/// What a run did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Summary {
    executions: Option<u64>,
    /// After the seeds and the corpus of earlier runs.
    first: Option<Reach>,
    /// At the end.
    last: Option<Reach>,
}

/// How far the inputs reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reach {
    /// Edges of the program that were taken.
    edges: u64,
    /// Inputs that are kept because each does something new.
    inputs: u64,
}

impl Summary {
    /// Takes a line of libFuzzer. Returns whether it is one of its reports, and of no further interest.
    pub(super) fn take(&mut self, line: &str) -> bool {
        if let Some(number) = line.strip_prefix("stat::number_of_executed_units:") {
            self.executions = number.trim().parse().ok();
            return true;
        }
        if line.starts_with("stat::") {
            return true;
        }
        let Some(reach) = Reach::of_line(line) else {
            return false;
        };
        if line.contains("INITED") {
            self.first = Some(reach);
        }
        self.last = Some(reach);
        true
    }
}

impl Reach {
    /// From a line such as `#1204 INITED cov: 302 ft: 1064 corp: 268/76Kb exec/s: 1204 rss: 30Mb`.
    fn of_line(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix('#')?.split_whitespace();
        let mut after = |name: &str| words.by_ref().skip_while(|word| *word != name).nth(1);
        let edges = after("cov:")?.parse().ok()?;
        let inputs = after("corp:")?.split('/').next()?.parse().ok()?;
        Some(Self { edges, inputs })
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.executions {
            Some(executions) => write!(formatter, "{executions} executions")?,
            None => formatter.write_str("an unknown number of executions")?,
        }
        if let (Some(first), Some(last)) = (self.first, self.last) {
            write!(
                formatter,
                ", {} edges (first {}), {} inputs kept (first {})",
                last.edges, first.edges, last.inputs, first.inputs
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Summary;

    #[test]
    fn a_run_is_summed_up() {
        let mut summary = Summary::default();
        for (line, is_report) in [
            ("INFO: Seed: 1", false),
            (
                "#2\tINITED cov: 302 ft: 900 corp: 26/7Kb exec/s: 0 rss: 30Mb",
                true,
            ),
            (
                "#9\tNEW    cov: 310 ft: 905 corp: 27/8Kb lim: 16 exec/s: 4 rss: 30Mb L: 9/9 MS: 1 X-",
                true,
            ),
            ("thread panicked", false),
            (
                "#70\tDONE   cov: 312 ft: 1286 corp: 35/9Kb lim: 16 exec/s: 5 rss: 31Mb",
                true,
            ),
            ("stat::number_of_executed_units: 70", true),
            ("stat::average_exec_per_sec:     5", true),
        ] {
            assert_eq!(summary.take(line), is_report, "{line}");
        }
        assert_eq!(
            summary.to_string(),
            "70 executions, 312 edges (first 302), 35 inputs kept (first 26)"
        );
        assert_eq!(
            Summary::default().to_string(),
            "an unknown number of executions"
        );
    }
}
