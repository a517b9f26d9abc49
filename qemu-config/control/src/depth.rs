// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How thorough the tests are.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How many times more rounds are done in hours than for every change.
const LONG_FACTOR: u32 = 25;

/// How thorough the tests are. It changes the number of rounds, and never what is checked in each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Depth {
    /// As many rounds as every change can afford.
    #[default]
    Short,
    /// As many as take hours.
    Long,
}

impl Depth {
    /// The number of rounds at this depth, where `short` are done for every change.
    #[must_use]
    pub fn rounds(self, short: u32) -> u32 {
        short.saturating_mul(self.patience())
    }

    /// How many times longer a test may take before it counts as hanging.
    #[must_use]
    pub fn patience(self) -> u32 {
        match self {
            Self::Short => 1,
            Self::Long => LONG_FACTOR,
        }
    }
}

/// A depth that there is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownDepth(String);

impl fmt::Display for UnknownDepth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected short or long, found '{}'", self.0)
    }
}

impl std::error::Error for UnknownDepth {}

impl FromStr for Depth {
    type Err = UnknownDepth;

    fn from_str(text: &str) -> Result<Self, UnknownDepth> {
        match text {
            "short" => Ok(Self::Short),
            "long" => Ok(Self::Long),
            other => Err(UnknownDepth(other.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Depth;

    #[test]
    fn long_is_more_rounds_of_the_same() {
        assert_eq!("short".parse::<Depth>().unwrap().rounds(7), 7);
        let long: Depth = "long".parse().unwrap();
        assert!(long.rounds(7) > 7 && long.patience() > 1);
        assert_eq!(long.rounds(u32::MAX), u32::MAX);
        assert!("deep".parse::<Depth>().is_err());
    }
}
