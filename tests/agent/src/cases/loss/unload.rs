// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The device fails while the module is unloaded, which brings all memory home first. No driver is there to which it could come
//! back, so what is still on it is lost at once; the module goes when nobody has any of that any more.

use super::contents::Reader;
use super::trial::{Cause, LONG_WAIT, counter, wait_for_more};
use crate::cases::support::driver;
use crate::cases::support::gate::Gate;
use crate::cases::support::inject::Faults;
use crate::cases::support::prelude::*;
use hmm_control::Again;

pub(super) const CASES: &[Case] = &[
    Case::new("loss/hung-at-unload-anon-4k", || {
        unload(Cause::Unanswered, || Memory::single(PAGES))
    }),
    Case::new("loss/hung-at-unload-anon-thp", || {
        unload(Cause::Unanswered, || Memory::huge(2))
    }),
];

/// For guests whose host starts devices again.
pub(super) const KILLED: &[Case] = &[Case::new("restart/killed-at-unload", || {
    unload(Cause::Killed(Again::No), || Memory::single(PAGES))
})];

const PAGES: usize = 600;

fn unload(cause: Cause, memory: impl FnOnce() -> Result<Memory>) -> Result<()> {
    let reloaded = cause.driver(LONG_WAIT)?;
    let faults = Faults::of_first_device()?;
    // Before there is any memory on the device, so that it does not wait for its own.
    let go = Gate::new()?;
    let unloader = fork(|| {
        go.wait()?;
        driver::unload().context("cannot remove the module")
    })?;
    let mut memory = memory()?;
    let mut other = Memory::single(PAGES)?;
    other.fill(2);
    memory.fill(1);
    // An open node would keep the module.
    Mover::open()?.all_to_device(memory.range())?;
    let before = counter("losses")?;
    faults.add(cause.unanswered("bulk"))?;
    go.open()?;
    wait_for_more("losses", before)?;
    // Nobody waits for a device that cannot come back, though the driver was told to wait for an hour.
    let reader = Reader::new()?;
    let lost = reader.check(&memory, 0..memory.pages(), 1, true)?;
    ensure!(lost > 0, "nothing was lost with the device");
    other.check(2)?;
    ensure!(
        !unloader.has_ended()?,
        "the module has gone, and {lost} of its pages are mapped"
    );
    drop(memory);
    unloader.wait()?;
    ensure!(!driver::is_loaded(), "the module is still there");
    other.check(2)?;
    drop(faults);
    drop(reloaded);
    Mover::open()?.all_to_device(other.range())?;
    other.check(2)
}
