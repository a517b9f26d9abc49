// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A guest whose device dies, and is started again on the same memory.

use crate::splat::Rules;
use crate::suite::{Plan, Suite};
use hmm_vm::Artifacts;
use hmm_vm::guest::{BootSpec, Load};
use hmm_vm::supervisor::{OnLoss, Restarts};
use std::time::Duration;

/// The test's name.
pub const NAME: &str = "boot/restart";

/// The cases.
const CASES: &[&str] = &[
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
    "restart/killed-twice-at-to-system-after-copy",
    "restart/killed-twice-at-job",
    "restart/killed-during-restart-at-idle",
    "restart/killed-during-restart-at-fork",
    "restart/kills-at-random-moments-anon-4k",
    "restart/other-identity-anon-4k",
    "restart/hung-while-moving-anon-4k",
    "restart/upgraded-while-moving-anon-4k",
    "restart/paused-while-moving-anon-4k",
];

/// Boots the guest and runs the cases.
///
/// # Errors
/// When a case fails, or the boot as a whole.
pub fn run(artifacts: Artifacts, mut spec: BootSpec, rules: Rules) -> anyhow::Result<()> {
    for device in &mut spec.devices {
        // Cases lose devices one after the other, without a rest.
        device.on_loss = OnLoss::Restart(Restarts {
            attempts: u32::MAX,
            back_off: Duration::ZERO,
            ..Restarts::default()
        });
    }
    Suite::start(Plan {
        artifacts,
        spec,
        rules: rules.tolerating_locks_of("pciehp_unconfigure_device+"),
        cases: CASES.iter().map(|&name| name.to_owned()).collect(),
        load: Load::default(),
    })
    .expect_all_passed(CASES)
}
