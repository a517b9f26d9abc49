// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Devices that come in the place of a lost one and do not have its contents.

use super::trial::{Trial, counter};
use crate::cases::support::driver;
use crate::cases::support::nodes;
use crate::cases::support::prelude::*;
use rustix::process::Signal;
use serde_json::json;

pub(super) const CASES: &[Case] = &[
    Case::new("loss/other-contents-anon-4k", other_contents),
    Case::new("loss/another-device-anon-4k", another_device),
    Case::new("loss/other-size-anon-4k", || {
        publishes("memory_bytes", 512 << 20)
    }),
    Case::new("loss/lower-version-anon-4k", || {
        publishes("version_minor", 0)
    }),
    Case::new("loss/nonsense-anon-4k", || publishes("magic", 0)),
];

/// The device comes back and says something else of itself. It is refused; when it says what it did before, all that it
/// had is there.
fn publishes(field: &str, value: u64) -> Result<()> {
    let trial = Trial::new()?;
    let memory = trial.memory(600, 1)?;
    trial.lose()?;
    (trial.faults).add(json!({ "action": "config", "field": field, "value": value }))?;
    trial.is_refused()?;
    trial.faults.clear()?;
    trial.come_back()?;
    memory.check(1)?;
    trial.mover.all_to_device(memory.range())?;
    memory.check(1)
}

/// The device has lost its contents. It is refused, and nothing but what was on it is lost.
fn other_contents() -> Result<()> {
    let trial = Trial::with_short_wait()?;
    let memory = trial.memory(600, 1)?;
    let mut other = Memory::single(600)?;
    other.fill(2);
    trial.lose()?;
    trial.faults.renew()?;
    trial.is_refused()?;
    fork(|| {
        memory.touch(3..4);
        Ok(())
    })?
    .wait_for_signal(Signal::BUS)?;
    trial.wait_until_gone();
    other.check(2)?;
    drop(memory);
    // Now nobody claims its memory any more.
    trial.begin_anew()?;
    ensure!(nodes::exist(), "there is no node");
    Mover::open()?.all_to_device(other.range())?;
    other.check(2)
}

/// Another device is bound while the first one is lost. It serves as itself, and leaves the first one its place.
fn another_device() -> Result<()> {
    let devices = driver::bound_devices()?;
    let [_, other, ..] = devices.as_slice() else {
        return Err(skip("this guest has one device"));
    };
    let trial = Trial::new()?;
    let memory = trial.memory(600, 1)?;
    driver::unbind(other)?;
    trial.lose()?;
    trial.release()?;
    driver::bind(other, devices.len())?;
    let told = (counter("returns")?, counter("refused_returns")?);
    ensure!(
        told == (0, 0),
        "the other device was taken for the first one: {told:?}"
    );
    trial.come_back()?;
    memory.check(1)?;
    trial.mover.all_to_device(memory.range())?;
    memory.check(1)
}
