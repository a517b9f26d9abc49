// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a figure was to reach.

use std::fmt;

use serde::Serialize;

/// What a figure is to reach.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// This much or more.
    AtLeast(f64),
    /// This much or less.
    AtMost(f64),
}

impl Goal {
    /// Whether a number reaches it. What is no number does not.
    #[must_use]
    pub fn is_met_by(self, number: f64) -> bool {
        match self {
            Self::AtLeast(least) => number >= least,
            Self::AtMost(most) => number <= most,
        }
    }

    /// What is to be said of a number, if there is one.
    #[must_use]
    pub fn verdict(self, number: Option<f64>) -> Verdict {
        match number {
            None => Verdict::NotMeasured,
            Some(number) if self.is_met_by(number) => Verdict::Met,
            Some(_) => Verdict::Missed,
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(least) => write!(formatter, "at least {least}"),
            Self::AtMost(most) => write!(formatter, "at most {most}"),
        }
    }
}

/// What is said of a figure that has a goal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It was reached.
    Met,
    /// It was not.
    Missed,
    /// This machine cannot say.
    NotMeasured,
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Met => "met",
            Self::Missed => "MISSED",
            Self::NotMeasured => "not measured",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_itself_is_met_and_what_is_no_number_is_not() {
        assert!(Goal::AtLeast(4.0).is_met_by(4.0));
        assert!(!Goal::AtLeast(4.0).is_met_by(3.99));
        assert!(Goal::AtMost(2.0).is_met_by(2.0));
        assert!(!Goal::AtMost(2.0).is_met_by(2.01));
        for goal in [Goal::AtLeast(0.0), Goal::AtMost(0.0)] {
            assert!(!goal.is_met_by(f64::NAN));
            assert_eq!(goal.verdict(None), Verdict::NotMeasured);
        }
        assert_eq!(Goal::AtMost(1.0).verdict(Some(2.0)), Verdict::Missed);
    }
}
