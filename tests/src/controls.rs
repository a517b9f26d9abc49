// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whether the debug kernel sees what it is there for: what is known to be wrong must be reported.

use crate::splat::Rules;
use crate::suite::{self, Plan, Suite};
use anyhow::{Context, ensure};
use hmm_vm::guest::{BootSpec, Load};
use hmm_vm::{Artifacts, Controls};
use std::fs;
use std::path::Path;

/// Something that is known to be wrong, and how it is found.
#[derive(Clone, Copy, Debug)]
pub struct Control {
    /// The test's name.
    pub name: &'static str,
    /// Boots a guest in which it happens.
    ///
    /// # Errors
    /// When the kernel did not report it.
    pub run: fn(&Artifacts, BootSpec, &Rules) -> anyhow::Result<()>,
}

/// Where the case finds the module in the guest's image.
const MODULE: &str = "/hmm/control.ko";

/// Boots in one of which the storm has to meet the use after free.
const ATTEMPTS: usize = 3;

const CONTROLS: [Control; 2] = [
    Control {
        name: "control/exit-against-evict",
        run: exit_against_evict,
    },
    Control {
        name: "control/leaks",
        run: leaks,
    },
];

/// All of them.
pub fn all() -> impl Iterator<Item = Control> {
    CONTROLS.into_iter()
}

/// The storm that the driver has to stand, against the kernel's own test driver. That one evicts pages of processes
/// that exit at the same time, which uses memory after it was freed.
fn exit_against_evict(artifacts: &Artifacts, spec: BootSpec, rules: &Rules) -> anyhow::Result<()> {
    let mut spec = spec;
    spec.load_driver = false;
    spec.devices.clear();
    let attempt = || {
        run(
            artifacts,
            spec.clone(),
            rules,
            |controls| controls.test_hmm.as_path(),
            "control/exit-against-evict",
            |splat| splat.contains("BUG: KASAN: slab-use-after-free") && splat.contains("dmirror_"),
        )
    };
    // Now and then the guest dies of something else first that the test driver does wrong: a page fault of the kernel's while
    // it copies a page.
    let mut result = attempt();
    for _ in 1..ATTEMPTS {
        if result.is_ok() {
            break;
        }
        result = attempt();
    }
    result
}

/// Memory that the kernel's own sample leaks.
fn leaks(artifacts: &Artifacts, spec: BootSpec, rules: &Rules) -> anyhow::Result<()> {
    run(
        artifacts,
        spec,
        rules,
        |controls| controls.kmemleak_test.as_path(),
        "control/leaks",
        |splat| splat.contains("new suspected memory leaks") && splat.contains("[kmemleak_test]"),
    )
}

/// Boots a guest with a module of the kernel's own, runs the case that uses it, and looks for a splat of this kind.
fn run(
    artifacts: &Artifacts,
    mut spec: BootSpec,
    rules: &Rules,
    module: fn(&Controls) -> &Path,
    case: &str,
    is_expected: fn(&str) -> bool,
) -> anyhow::Result<()> {
    let controls = (artifacts.controls.as_ref()).context("the controls were not built")?;
    spec.image
        .host_file(MODULE, module(controls))
        .context("cannot put the module into the guest's image")?;
    let suite = Suite::start(Plan {
        artifacts: artifacts.clone(),
        spec,
        rules: rules.clone(),
        cases: vec![case.to_owned()],
        load: Load::default(),
        limit: suite::LIMIT,
        recording: None,
    });
    // The guest may die of what happens there; then there is no result, and what counts is its log all the same.
    let result = suite.result(case);
    let end = suite.end();
    let folder = suite.folder().context("the guest did not boot")?;
    let log = fs::read(folder.join("serial.log")).context("the kernel's log cannot be read")?;
    let splats = rules.scan(&String::from_utf8_lossy(&log));
    ensure!(
        splats.iter().any(|splat| is_expected(&splat.text)),
        "the kernel did not report it; the case: {result:?}; the boot: {end:?}; logs: {}",
        folder.display()
    );
    // All that is in there was asked for.
    let _ = fs::remove_dir_all(&folder);
    Ok(())
}
