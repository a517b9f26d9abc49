// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The tests that took longest.

use std::fmt;

use hmm_tests::timing::Timing;

/// So many are shown.
const SHOWN: usize = 20;

/// Shows the slowest of the guest's tests, with what a look at them is worth: a test that is slow although the guest's processors are
/// idle waits.
pub(crate) struct Slowest<'a>(pub(crate) &'a [Timing]);

impl fmt::Display for Slowest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut timings: Vec<&Timing> = self.0.iter().collect();
        timings.sort_by(|one, other| other.seconds.total_cmp(&one.seconds));
        let sum: f64 = timings.iter().map(|timing| timing.seconds).sum();
        timings.truncate(SHOWN);
        let shown: f64 = timings.iter().map(|timing| timing.seconds).sum();
        writeln!(
            f,
            "the slowest {} of the guest's tests took {shown:.0} s of {sum:.0} s \
             (seconds, processors busy, name):",
            timings.len()
        )?;
        for timing in timings {
            let busy = (timing.busy).map_or_else(String::new, |busy| format!("{busy} %"));
            writeln!(f, "{:8.1} {busy:>6}  {}", timing.seconds, timing.name)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{SHOWN, Slowest};
    use hmm_tests::timing::Timing;

    #[test]
    fn the_slowest_come_first() {
        let timings: Vec<Timing> = (0..2 * SHOWN)
            .map(|number| Timing {
                name: format!("a/{number}"),
                seconds: number as f64,
                busy: (number == 39).then_some(7),
            })
            .collect();
        let text = Slowest(&timings).to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 1 + SHOWN);
        assert!(lines[0].contains("slowest 20") && lines[0].contains("590 s of 780 s"));
        assert_eq!(lines[1], "    39.0    7 %  a/39");
        assert_eq!(lines[SHOWN], "    20.0         a/20");
    }
}
