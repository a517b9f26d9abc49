// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which part of the tests a machine runs when several share them.
//!
//! The part that a test belongs to depends on its name and the number of parts alone. A new test moves no other one, and
//! machines need not talk to each other.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

/// Where the tests look for their part.
pub const VARIABLE: &str = "HMM_PARTITION";

/// Part `part` of `parts`, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    part: NonZeroU32,
    parts: NonZeroU32,
}

/// A part that there is not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a part and the number of parts, such as 1/2 and 2/2, found '{0}'")]
pub struct PartitionError(String);

impl Partition {
    /// All tests.
    pub const ALL: Self = Self {
        part: NonZeroU32::MIN,
        parts: NonZeroU32::MIN,
    };

    /// The part that the environment asks for; all tests without it.
    ///
    /// # Errors
    /// When there is no such part.
    pub fn from_environment() -> anyhow::Result<Self> {
        match std::env::var(VARIABLE) {
            Ok(text) => (text.parse()).map_err(|error| anyhow::anyhow!("{VARIABLE}: {error}")),
            Err(_) => Ok(Self::ALL),
        }
    }

    /// Whether everything belongs to this part.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.parts == NonZeroU32::MIN
    }

    /// Whether the test of this name belongs to this part.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        let parts = u64::from(self.parts.get());
        hash(name) % parts == u64::from(self.part.get()) - 1
    }
}

/// FNV-1a with 64 bits, and its halves folded: the low bits of short names alone are not even. It must not change, as the parts would.
fn hash(name: &str) -> u64 {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash ^ (hash >> 32)
}

impl FromStr for Partition {
    type Err = PartitionError;

    fn from_str(text: &str) -> Result<Self, PartitionError> {
        let number = |text: &str| text.parse::<NonZeroU32>().ok();
        (text.split_once('/'))
            .and_then(|(part, parts)| {
                let (part, parts) = (number(part)?, number(parts)?);
                (part <= parts).then_some(Self { part, parts })
            })
            .ok_or_else(|| PartitionError(text.to_owned()))
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.part, self.parts)
    }
}

#[cfg(test)]
mod tests {
    use super::Partition;

    fn parts(count: u32) -> Vec<Partition> {
        let part = |part| format!("{part}/{count}").parse().unwrap();
        (1..=count).map(part).collect()
    }

    #[test]
    fn each_test_is_in_one_part() {
        for count in 1..6 {
            for name in ["", "a", "fork/child-reads-anon-4k", "debug/storm/x"] {
                let holders = parts(count)
                    .iter()
                    .filter(|part| part.contains(name))
                    .count();
                assert_eq!(holders, 1, "{name} of {count}");
            }
        }
    }

    #[test]
    fn parts_are_about_even() {
        let names: Vec<String> = (0..1000)
            .map(|number| format!("group/case-{number}-4k"))
            .collect();
        for count in 2..6 {
            for part in parts(count) {
                let size = names.iter().filter(|name| part.contains(name)).count();
                let even = 1000 / count as usize;
                assert!(
                    (even * 4 / 5..=even * 6 / 5).contains(&size),
                    "{part}: {size}"
                );
            }
        }
    }

    /// Machines with different versions of this program must agree, and a test stays where it was.
    #[test]
    fn the_part_of_a_name_does_not_change() {
        let part_of = |name: &str| {
            (parts(4).into_iter().position(|part| part.contains(name))).map(|index| index + 1)
        };
        let found = ["migrate/roundtrip-anon-4k", "storm/x", "a", ""].map(part_of);
        assert_eq!(found, [Some(1), Some(2), Some(1), Some(2)]);
    }

    #[test]
    fn a_part_that_there_is_not_is_refused() {
        assert_eq!("2/3".parse::<Partition>().unwrap().to_string(), "2/3");
        for wrong in ["", "1", "0/2", "3/2", "1/0", "a/b", "1/2/3", "-1/2"] {
            assert!(wrong.parse::<Partition>().is_err(), "{wrong}");
        }
    }
}
