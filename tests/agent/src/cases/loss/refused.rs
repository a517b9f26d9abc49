// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Devices that come in the place of a lost one and do not have its contents.

use super::trial::Trial;
use crate::cases::support::nodes;
use crate::cases::support::prelude::*;
use rustix::process::Signal;

pub(super) const CASES: &[Case] = &[Case::new("loss/other-contents-anon-4k", other_contents)];

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
