// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A guest whose device dies, and is started again on the same memory.

use crate::load;
use crate::splat::Rules;
use crate::suite::{self, Plan, Suite};
use anyhow::Context;
use hmm_vm::Artifacts;
use hmm_vm::guest::BootSpec;
use hmm_vm::initramfs::{Packer, Tree};
use hmm_vm::supervisor::{OnLoss, Restarts};
use std::path::Path;
use std::time::Duration;

/// Cases that share a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The device dies at each moment.
    Moments,
    /// It dies while programs and jobs use it, or comes back as another.
    UnderLoad,
}

impl Part {
    /// Both, the longer first.
    pub const ALL: [Self; 2] = [Self::Moments, Self::UnderLoad];

    /// The name of the test.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Moments => "boot/restart",
            Self::UnderLoad => "boot/restart-under-load",
        }
    }

    /// The cases: of those under load the one that kills at random, if a number of kills is asked for, and no others then.
    #[must_use]
    pub const fn cases(self, kills: Option<u32>) -> &'static [&'static str] {
        match (self, kills) {
            (Self::Moments, None) => MOMENTS,
            (Self::Moments, Some(_)) => &[],
            (Self::UnderLoad, None) => UNDER_LOAD,
            (Self::UnderLoad, Some(_)) => &[KILLS],
        }
    }
}

/// The case that `HMM_KILLS` is for.
const KILLS: &str = "restart/kills-at-random-moments-anon-4k";

const MOMENTS: &[&str] = &[
    "restart/killed-at-idle",
    "restart/killed-at-to-device-before-copy",
    "restart/killed-at-to-device-after-copy",
    "restart/killed-at-to-system-before-copy",
    "restart/killed-at-to-system-after-copy",
    "restart/killed-at-cpu-fault-before-copy",
    "restart/killed-at-cpu-fault-after-copy",
    "restart/killed-at-device-fault",
    "restart/killed-at-job",
    "restart/killed-at-eviction",
    "restart/killed-at-unbind",
    "restart/killed-at-fork",
    "restart/killed-at-exit",
    "restart/killed-at-unload",
    "restart/killed-twice-at-to-system-after-copy",
    "restart/killed-twice-at-job",
    "restart/killed-during-restart-at-idle",
    "restart/killed-during-restart-at-fork",
];

const UNDER_LOAD: &[&str] = &[
    KILLS,
    "restart/python3-anon",
    "restart/redis-anon",
    "restart/other-identity-anon-4k",
    "restart/hung-while-moving-anon-4k",
    "restart/upgraded-while-moving-anon-4k",
    "restart/paused-while-moving-anon-4k",
    "restart/stalled-queue-while-moving-anon-4k",
];

/// The guest, which has the device that `spec` has, and what its log must not have.
#[must_use]
pub fn guest(mut spec: BootSpec, rules: Rules) -> (BootSpec, Rules) {
    for device in &mut spec.devices {
        // Cases lose devices one after the other, without a rest.
        device.on_loss = OnLoss::Restart(Restarts {
            attempts: u32::MAX,
            back_off: Duration::ZERO,
            ..Restarts::default()
        });
    }
    (
        spec,
        rules.tolerating_locks_of("pciehp_unconfigure_device+"),
    )
}

/// The programs of others that the guest runs, with what they read.
fn programs(artifacts: &Artifacts) -> anyhow::Result<Tree> {
    const TABLE: &str = include_str!("../programs/table.py");
    let root = (artifacts.programs.as_ref()).context("the artifacts have no programs")?;
    let mut packer = Packer::of_folder(root);
    for program in ["python3", "redis-server"] {
        packer.program(program.as_ref(), Path::new("/"))?;
    }
    packer.file(Path::new("/usr/lib/python3.13"))?;
    let mut image = packer.finish()?;
    image.bytes("/programs/table.py", TABLE, 0o644)?;
    Ok(image)
}

/// Boots the guest and runs these cases.
///
/// # Errors
/// When a case fails, or the boot as a whole.
pub fn run(
    artifacts: Artifacts,
    spec: BootSpec,
    rules: Rules,
    cases: &'static [&'static str],
) -> anyhow::Result<()> {
    let (mut spec, rules) = guest(spec, rules);
    spec.image = programs(&artifacts)?;
    Suite::start(Plan {
        artifacts,
        spec,
        rules,
        cases: cases.iter().map(|&name| name.to_owned()).collect(),
        load: load::from_environment()?,
        limit: suite::LIMIT,
        recording: None,
    })
    .expect_all_passed(cases)
}
