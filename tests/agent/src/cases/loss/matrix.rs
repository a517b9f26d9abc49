// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Each failure at each moment: `loss/FAILURE-at-MOMENT`.

use super::contents::Reader;
use super::failure::Failure;
use super::moment::Moment;
use crate::cases::support::jobs::Jobs;
use crate::cases::support::prelude::*;
use hmm_uapi::client::JobRequest;

/// The cases of one failure at all moments.
macro_rules! at_each_moment {
    ($group:literal, $failure:literal, $kind:expr) => {
        at_each_moment! { $group, $failure, $kind,
            "idle" Idle,
            "to-device-before-copy" ToDeviceBeforeCopy,
            "to-device-after-copy" ToDeviceAfterCopy,
            "to-system-before-copy" ToSystemBeforeCopy,
            "to-system-after-copy" ToSystemAfterCopy,
            "cpu-fault-before-copy" CpuFaultBeforeCopy,
            "cpu-fault-after-copy" CpuFaultAfterCopy,
            "device-fault" DeviceFault,
            "job" JobRunning,
            "eviction" Eviction,
            "unbind" Unbind,
            "fork" Fork,
            "exit" ExitOfOwner,
        }
    };
    ($group:literal, $failure:literal, $kind:expr, $($moment:literal $at:ident,)*) => {
        &[$(
            Case::new(
                concat!($group, "/", $failure, "-at-", $moment),
                || cell($kind, Moment::$at),
            ),
        )*]
    };
}

pub(super) const HUNG: &[Case] = at_each_moment!("loss", "hung", Failure::Hung);
pub(super) const HUNG_TWICE: &[Case] = at_each_moment!("loss", "hung-twice", Failure::HungTwice);
pub(super) const OTHER_CONTENTS: &[Case] =
    at_each_moment!("loss", "other-contents", Failure::OtherContents);
pub(super) const NOTHING_RETURNS: &[Case] =
    at_each_moment!("loss", "nothing-returns", Failure::NothingReturns);

/// For guests whose host starts devices again; see `tests/src/restart.rs`.
pub(super) const KILLED: &[Case] = at_each_moment!("restart", "killed", Failure::Killed);
pub(super) const KILLED_TWICE: &[Case] =
    at_each_moment!("restart", "killed-twice", Failure::KilledTwice);
pub(super) const KILLED_DURING_RESTART: &[Case] = at_each_moment!(
    "restart",
    "killed-during-restart",
    Failure::KilledDuringRestart
);

const PAGES: usize = 600;

/// Loses the device at a moment, and lets the failure go on. Every byte is there afterwards, or cannot be had if the device
/// does not come back with it; what was not on the device is there in any case, and the device works.
fn cell(failure: Failure, moment: Moment) -> Result<()> {
    let trial = failure.trial()?;
    let mut memory = Memory::single(PAGES)?;
    memory.fill(1);
    let half = PAGES / 2;
    trial.mover.all_to_device(memory.part(0..half))?;
    let memory = memory;
    let ongoing = moment.lose(&trial, &memory, !failure.keeps_contents())?;
    failure.go_on(&trial)?;
    ongoing.end()?;

    let reader = Reader::new()?;
    if failure.keeps_contents() {
        reader.check(&memory, 0..PAGES, 1, false)?;
        trial.mover.all_to_device(memory.range())?;
        let jobs = Jobs::open()?;
        jobs.done(&JobRequest::fill(memory.range(), 0))?;
        return memory.check_zero(0..PAGES);
    }
    let lost = reader.check(&memory, 0..half, 1, true)?;
    ensure!(lost > 0, "nothing was lost with the device");
    reader.check(&memory, half..PAGES, 1, false)?;
    drop(memory);
    // With nothing left of what was lost, the device serves as one that nobody knows.
    trial.release()?;
    trial.begin_anew()?;
    let mut memory = Memory::single(PAGES)?;
    memory.fill(2);
    Mover::open()?.all_to_device(memory.range())?;
    memory.check(2)
}
