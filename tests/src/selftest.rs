// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whether these tests notice what they are there for: a boot with cases that go wrong, each in its own way.

use crate::excerpt;
use crate::ktap::Outcome;
use crate::splat::Rules;
use crate::suite::{self, Plan, Suite};
use anyhow::{Context, ensure};
use hmm_vm::Artifacts;
use hmm_vm::guest::{BootSpec, Load};
use std::fs;

/// What must become of each case, and what must be said about it.
const EXPECTED: [(&str, Ending, &str); 11] = [
    ("selftest/passes", Ending::Passes, ""),
    ("selftest/fails", Ending::Fails, "this case fails"),
    ("selftest/skips", Ending::IsSkipped, ""),
    ("selftest/panics", Ending::Fails, "this case panics"),
    ("selftest/crashes", Ending::Fails, "ended by signal 6"),
    ("selftest/hangs", Ending::TimesOut, "killed after"),
    // The process that it leaves is killed, and its memory comes off the device.
    ("selftest/child-hangs", Ending::Passes, ""),
    ("selftest/loses-a-byte", Ending::Fails, "page 5, byte 0"),
    // The device inverts bits now and then.
    ("selftest/load-loses-bits", Ending::Fails, "expected 0x"),
    (
        "selftest/removes-the-driver",
        Ending::Fails,
        "without the driver",
    ),
    // The case cannot know; the log of the boot tells.
    ("selftest/splat", Ending::Passes, ""),
];

/// What the last case writes into the kernel's log.
const SPLAT: &str = "BUG: selftest of the guest tests";

#[derive(Clone, Copy, Debug)]
enum Ending {
    Passes,
    Fails,
    TimesOut,
    IsSkipped,
}

impl Ending {
    fn is(self, outcome: &Outcome) -> bool {
        match self {
            Self::Passes => *outcome == Outcome::Passed,
            Self::Fails => *outcome == Outcome::Failed,
            Self::TimesOut => *outcome == Outcome::TimedOut,
            Self::IsSkipped => *outcome == Outcome::Skipped("this case cannot run".to_owned()),
        }
    }
}

/// Boots a guest with the cases that go wrong, and checks that all of it is noticed.
///
/// # Errors
/// What was not.
pub fn run(artifacts: Artifacts, spec: BootSpec, rules: Rules) -> anyhow::Result<()> {
    let names: Vec<String> = EXPECTED
        .iter()
        .map(|(name, _, _)| (*name).to_owned())
        .collect();
    let suite = Suite::start(Plan {
        artifacts,
        spec,
        rules,
        cases: names,
        load: Load::default(),
        limit: suite::LIMIT,
        recording: None,
    });
    let result = check(&suite);
    let Some(folder) = suite.folder() else {
        return result;
    };
    if result.is_ok() {
        // All that is in there was asked for.
        let _ = fs::remove_dir_all(&folder);
    }
    result.with_context(|| format!("logs: {}", folder.display()))
}

fn check(suite: &Suite) -> anyhow::Result<()> {
    for (name, ending, text) in EXPECTED {
        let result = suite.result(name).map_err(anyhow::Error::msg)?;
        ensure!(
            ending.is(&result.outcome),
            "{name}: expected {ending:?}, found {:?}: {:?}",
            result.outcome,
            result.remarks
        );
        ensure!(
            result.remarks.iter().any(|remark| remark.contains(text)),
            "{name}: expected '{text}' among {:?}",
            result.remarks
        );
    }
    let folder = suite.folder().context("the guest did not boot")?;
    for (case, has_splat) in [("selftest/passes", false), ("selftest/splat", true)] {
        let log = excerpt::of_case(&folder, case);
        ensure!(
            log.contains(SPLAT) == has_splat,
            "the part of the kernel's log that belongs to {case} is wrong: {log}"
        );
    }
    let Err(problem) = suite.end() else {
        anyhow::bail!("the splat in the kernel's log was not noticed");
    };
    ensure!(
        problem.starts_with("kernel log, line") && problem.contains(SPLAT),
        "expected the splat and nothing else, found: {problem}"
    );
    Ok(())
}
