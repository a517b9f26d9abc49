// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a case is.

use super::support::kernel;
use hmm_control::Load;
use std::fmt;
use std::time::Duration;

/// How long a case may take unless it says otherwise. Only a hang takes that long, also under emulation.
const LIMIT: Duration = Duration::from_secs(120);
/// How much slower a guest may be because others run beside it.
const NEIGHBOURS: u32 = 2;

/// How long a round of random calls may take. Only a hang takes that long, also under emulation.
const ROUND: Duration = Duration::from_secs(1);

/// One case.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    /// `group/operation-memory-flags`. Names do not change.
    pub(super) name: &'static str,
    /// Does it, in a process of its own.
    pub(super) run: fn() -> anyhow::Result<()>,
    /// When it counts as hanging.
    limit: Duration,
    /// Whether it goes on for as long as it is asked to.
    is_load: bool,
    /// Whether it makes as many random calls as it is asked to.
    has_rounds: bool,
    /// Whether it kills a device's process as often as it is asked to.
    has_kills: bool,
}

impl Case {
    /// A case with the usual limit.
    pub(super) const fn new(name: &'static str, run: fn() -> anyhow::Result<()>) -> Self {
        Self {
            name,
            run,
            limit: LIMIT,
            is_load: false,
            has_rounds: false,
            has_kills: false,
        }
    }

    /// The same case with a limit of this many seconds.
    pub(super) const fn within(mut self, seconds: u64) -> Self {
        self.limit = Duration::from_secs(seconds);
        self
    }

    /// The same case, which goes on for as long as it is asked to; its limit is for what comes before and after.
    pub(super) const fn load(mut self) -> Self {
        self.is_load = true;
        self
    }

    /// The same case, which makes as many random calls as it is asked to; its limit is for the usual number.
    pub(super) const fn rounds(mut self) -> Self {
        self.has_rounds = true;
        self
    }

    /// The same case, which kills a device's process as often as it is asked to; its limit is for the usual number.
    pub(super) const fn kills(mut self) -> Self {
        self.has_kills = true;
        self
    }

    /// How long the case may take on this kernel.
    pub(super) fn limit_with(&self, load: &Load) -> Duration {
        let asked = match self.is_load {
            true => load.duration(),
            false => Duration::ZERO,
        };
        let rounds = match self.has_rounds {
            true => ROUND * load.fuzz_rounds.unwrap_or(0),
            false => Duration::ZERO,
        };
        let kills = match self.has_kills {
            true => load.time_of_kills(),
            false => Duration::ZERO,
        };
        (self.limit + rounds + kills) * kernel::patience() * NEIGHBOURS * load.depth.patience()
            + asked
    }

    /// Whether one of the patterns is part of the name, or is `=` and the whole name; without patterns, always.
    pub(super) fn matches(&self, patterns: &[String]) -> bool {
        patterns.is_empty()
            || self.is_named(patterns)
            || patterns.iter().any(|pattern| self.name.contains(pattern))
    }

    /// Whether one of the patterns is `=` and the whole name.
    pub(super) fn is_named(&self, patterns: &[String]) -> bool {
        patterns
            .iter()
            .any(|pattern| pattern.strip_prefix('=') == Some(self.name))
    }
}

/// The error of a case that cannot run here.
#[derive(Debug)]
pub(super) struct Skip(pub(super) String);

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skip {}

/// Ends a case that cannot run here, and says why.
pub(super) fn skip(reason: impl Into<String>) -> anyhow::Error {
    Skip(reason.into()).into()
}

#[cfg(test)]
mod tests {
    use super::Case;
    use crate::cases::all;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_have_the_agreed_form() {
        let mut names = BTreeSet::new();
        for case in all() {
            assert!(names.insert(case.name), "{} is there twice", case.name);
            let (group, operation) = case.name.split_once('/').expect(case.name);
            for part in [group, operation] {
                assert!(!part.is_empty(), "{}", case.name);
                assert!(
                    part.bytes().all(|byte| byte.is_ascii_lowercase()
                        || byte.is_ascii_digit()
                        || byte == b'-'),
                    "{}",
                    case.name
                );
            }
        }
        assert!(!names.is_empty());
    }

    #[test]
    fn a_pattern_is_part_of_a_name() {
        let case = Case::new("fork/child-reads", || Ok(()));
        assert!(case.matches(&[]));
        assert!(case.matches(&["exit/".to_owned(), "fork/".to_owned()]));
        assert!(!case.matches(&["exit/".to_owned()]));
        assert!(case.matches(&["=fork/child-reads".to_owned()]));
        assert!(!case.matches(&["=fork/child".to_owned()]));
    }
}
