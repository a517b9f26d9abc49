// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What options take, and how it is written.

use crate::run::Rules;
use crate::size::size;
use clap::ValueEnum;
use hmm_uapi::NEVER_TOUCHES;
use hmm_uapi::client::Process;
use std::str::FromStr;
use std::time::Duration;

/// A side of the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Side {
    /// The device's private memory.
    Device,
    /// System memory.
    System,
}

/// The side that memory had better be on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PreferredSide {
    /// Either.
    None,
    /// The device's private memory.
    Device,
    /// System memory.
    System,
}

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum YesNo {
    /// Yes.
    Yes,
    /// No.
    No,
}

/// Bounds of what a CPU fault takes along, bytes. Whether they are allowed is the driver's to judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WindowBounds {
    pub(crate) least: u32,
    pub(crate) most: u32,
}

impl FromStr for WindowBounds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "0" {
            return Ok(Self { least: 0, most: 0 });
        }
        let expected = || format!("expected LEAST-MOST, as in 4K-64K, or 0, found '{text}'");
        let (least, most) = text.split_once('-').ok_or_else(expected)?;
        let bytes = |text| {
            let bytes = size(text).map_err(|error| error.to_string())?;
            u32::try_from(bytes).map_err(|_| expected())
        };
        Ok(Self {
            least: bytes(least)?,
            most: bytes(most)?,
        })
    }
}

/// By which page fault of the device memory moves there, as ADVISE has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Touches(pub(crate) u32);

impl FromStr for Touches {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "default" => Ok(Self(0)),
            "never" => Ok(Self(NEVER_TOUCHES)),
            // The numbers at both ends mean something else.
            count => (count.parse().ok())
                .filter(|count| (1..NEVER_TOUCHES).contains(count))
                .map(Self)
                .ok_or_else(|| {
                    format!("expected a count from 1 on, 'never' or 'default', found '{text}'")
                }),
        }
    }
}

/// How much device memory a process may have, bytes; `None`: as much as there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemoryLimit(pub(crate) Option<u64>);

pub(super) fn memory_limit(text: &str) -> Result<MemoryLimit, String> {
    if text == "none" {
        return Ok(MemoryLimit(None));
    }
    (size(text))
        .map(|bytes| MemoryLimit(Some(bytes)))
        .map_err(|error| error.to_string())
}

/// How `run` chooses what to move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Policy {
    /// Move memory that rests to the device, and leave alone what the program uses: faults and moves take about a
    /// tenth of the time that the program runs.
    ToDevice,
    /// Move all memory in turn, also what the program uses: faults and moves take two fifths of the time that the
    /// program runs.
    Churn,
    /// Move everything in every pass, for tests. There is no bound to how slow the program becomes.
    Stress,
}

impl Policy {
    /// The word used on the command line and in the summary.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ToDevice => "to-device",
            Self::Churn => "churn",
            Self::Stress => "stress",
        }
    }

    /// How the policy is paced; `None`: it is not.
    pub(crate) fn rules(self) -> Option<Rules> {
        match self {
            Self::ToDevice => Some(Rules {
                share: 0.1,
                learns: true,
            }),
            Self::Churn => Some(Rules {
                share: 0.4,
                learns: false,
            }),
            Self::Stress => None,
        }
    }
}

/// Shorter intervals measure hmmctl itself.
pub(super) fn interval(text: &str) -> Result<Duration, String> {
    const LEAST: Duration = Duration::from_millis(10);
    let interval = milliseconds(text)?;
    if interval < LEAST {
        return Err(format!("expected at least {} ms", LEAST.as_millis()));
    }
    Ok(interval)
}

pub(super) fn process(text: &str) -> Result<Process, String> {
    text.parse()
        .ok()
        .and_then(Process::from_id)
        .ok_or_else(|| "a process id is a positive number".to_owned())
}

/// A number, hexadecimal with `0x` or decimal.
pub(super) fn number(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        // `from_str_radix` would take a sign.
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            u64::from_str_radix(digits, 16)
        }
        _ => text.parse(),
    };
    parsed.map_err(|error| format!("expected a number, as in 5 or 0x5a, found '{text}': {error}"))
}

/// Permissions of the device's page tables, as a job has them.
pub(super) fn permissions(text: &str) -> Result<u64, String> {
    text.chars().try_fold(0, |all, letter| match letter {
        'r' => Ok(all | 1),
        'w' => Ok(all | 2),
        'a' => Ok(all | 4),
        'd' => Ok(all | 8),
        _ => Err(format!("expected letters of 'rwad', found '{text}'")),
    })
}

pub(super) fn milliseconds(text: &str) -> Result<Duration, String> {
    text.parse()
        .map(Duration::from_millis)
        .map_err(|error| format!("expected a whole number of milliseconds: {error}"))
}

#[cfg(test)]
mod tests {
    use super::{Touches, permissions};

    #[test]
    fn touches_are_a_count_or_a_word() {
        for (text, expected) in [
            ("default", Some(0)),
            ("never", Some(u32::MAX)),
            ("1", Some(1)),
            ("4294967294", Some(u32::MAX - 1)),
            ("0", None),
            ("4294967295", None),
            ("-1", None),
            ("often", None),
        ] {
            let touches = text.parse::<Touches>().ok().map(|touches| touches.0);
            assert_eq!(touches, expected, "{text}");
        }
    }

    #[test]
    fn letters_are_permissions() {
        assert_eq!(permissions("r"), Ok(1));
        assert_eq!(permissions("dwr"), Ok(11));
        assert!(permissions("x").is_err());
    }
}
