// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Commands in a guest that sees the host's files, as `cargo xtask run` starts them. All tests share one boot, but for those
//! that end their guest.

mod examples;
mod files;
mod interrupts;
mod monitor;
mod processes;
mod site;

use crate::splat::Rules;
use hmm_vm::Artifacts;
use hmm_vm::guest::{BootSpec, GuestError};
use site::Site;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What became of a test that ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything was as expected.
    Passed,
    /// This machine lacks something that the test needs.
    Skipped(&'static str),
}

/// A test of this kind.
#[derive(Clone, Copy, Debug)]
pub struct RunTest {
    /// The test's name.
    pub name: &'static str,
    run: fn(&mut Site) -> anyhow::Result<Outcome>,
    /// Whether it ends its guest, so that it has one of its own.
    ends_guest: bool,
}

impl RunTest {
    const fn new(name: &'static str, run: fn(&mut Site) -> anyhow::Result<Outcome>) -> Self {
        Self {
            name,
            run,
            ends_guest: false,
        }
    }

    const fn ending(name: &'static str, run: fn(&mut Site) -> anyhow::Result<Outcome>) -> Self {
        Self {
            name,
            run,
            ends_guest: true,
        }
    }
}

/// What became of each test by its name, and how long it took.
pub type Results = BTreeMap<&'static str, (Result<Outcome, String>, Duration)>;

/// All of them. Those that end a guest which does not withstand them come last.
pub fn all() -> impl Iterator<Item = RunTest> {
    [
        examples::TESTS,
        files::TESTS,
        monitor::TESTS,
        interrupts::TESTS,
        processes::TESTS,
    ]
    .into_iter()
    .flatten()
    .copied()
}

/// Boots a guest and runs the chosen tests in it, and one more for each test that ends its guest.
///
/// # Errors
/// When a guest does not boot, the shared one does not power off, or its kernel complains.
pub fn boot(
    artifacts: &Artifacts,
    spec: BootSpec,
    rules: &Rules,
    chosen: &[RunTest],
) -> Result<Results, String> {
    let failed = |error: anyhow::Error| format!("{error:#}");
    let (ending, sharing): (Vec<&RunTest>, Vec<&RunTest>) =
        chosen.iter().partition(|test| test.ends_guest);
    let mut results = Results::new();
    for test in ending {
        let started = Instant::now();
        let mut site = Site::boot(artifacts, spec.clone()).map_err(failed)?;
        let result = (test.run)(&mut site).map_err(failed);
        results.insert(test.name, (result, started.elapsed()));
    }
    if sharing.is_empty() {
        return Ok(results);
    }
    let mut site = Site::boot(artifacts, spec).map_err(failed)?;
    let mut ended_in = None;
    for test in sharing {
        let started = Instant::now();
        let result = match ended_in {
            None => (test.run)(&mut site),
            Some(name) => Err(anyhow::anyhow!("the guest ended in {name}")),
        };
        if let Err(error) = &result
            && error.downcast_ref::<GuestError>().is_some()
        {
            ended_in.get_or_insert(test.name);
        }
        results.insert(test.name, (result.map_err(failed), started.elapsed()));
    }
    if ended_in.is_none() {
        let log = site.power_off().map_err(failed)?;
        let splats = rules.scan(&log);
        if !splats.is_empty() {
            return Err(format!("{splats:#?}"));
        }
    }
    Ok(results)
}
