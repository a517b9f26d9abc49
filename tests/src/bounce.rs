// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A guest whose kernel gives every device bounce buffers in place of pages. Contents reach a page only when its DMA
//! mapping is undone, so a mapping that is forgotten shows in the contents.

use crate::splat::Rules;
use crate::suite::{self, Plan, Suite};
use hmm_vm::Artifacts;
use hmm_vm::guest::{BootSpec, Load};

/// The test's name.
pub const NAME: &str = "boot/bounce-buffers";

/// The cases: those that look at the buffers, and some that meet errors on the way to system memory.
const CASES: &[&str] = &[
    "bounce/round-trip-anon-4k",
    "bounce/jobs-are-refused",
    "bounce/torn-down-after-answer-anon-4k",
    "errors/refused-entry-to-system-anon-4k",
    "errors/lost-completion-to-system-anon-4k",
    "unload/unbind-while-faulting-anon-4k",
];

/// The guest.
#[must_use]
pub fn guest(mut spec: BootSpec) -> BootSpec {
    spec.append.push("swiotlb=force".to_owned());
    spec
}

/// Boots the guest and runs the cases.
///
/// # Errors
/// When a case fails, or the boot as a whole.
pub fn run(artifacts: Artifacts, spec: BootSpec, rules: Rules) -> anyhow::Result<()> {
    let spec = guest(spec);
    Suite::start(Plan {
        artifacts,
        spec,
        rules,
        cases: CASES.iter().map(|&name| name.to_owned()).collect(),
        load: Load::default(),
        limit: suite::LIMIT,
        recording: None,
    })
    .expect_all_passed(CASES)
}
