// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The memory of a process that was killed is left alone.

use crate::cases::support::gate::Gate;
use crate::cases::support::inject::Faults;
use crate::cases::support::ioctl::RawNode;
use crate::cases::support::nodes;
use crate::cases::support::prelude::*;
use hmm_uapi::{IOCTL_TYPE, MIGRATE_NR, Migrate};
use rustix::io::Errno;
use rustix::process::Signal;
use serde_json::json;
use zerocopy::IntoBytes;

pub(super) const CASES: &[Case] = &[Case::new("access/target-killed", target_killed)];

/// The memory of a process that is killed is not moved to its end.
fn target_killed() -> Result<()> {
    let ready = Gate::new()?;
    let mut memory = Memory::single(32 * HUGE / PAGE)?;
    let range = memory.range();
    let device = Mover::open()?.device;
    let target = fork(|| {
        memory.fill(1);
        ready.open()?;
        loop {
            std::thread::park();
        }
    })?;
    ready.wait()?;
    let faults = Faults::of_first_device()?;
    faults.add(json!({ "action": "delay", "microseconds": 300_000 }))?;
    let before = device.stats()?.bytes_to_device;
    let pid = target.id()?;
    let mover = fork(|| {
        let mut call = Migrate {
            direction: Direction::ToDevice as u32,
            pid,
            start: range.start,
            end: range.end,
            ..Migrate::default()
        };
        let node = RawNode::open(&nodes::first())?;
        let result = node.call(IOCTL_TYPE, MIGRATE_NR, call.as_mut_bytes());
        ensure!(
            result == Err(Errno::SRCH) && call.next < call.end && call.pages_moved > 0,
            "{result:?}, {} of {} pages moved",
            call.pages_moved,
            range.clone().count() / PAGE
        );
        Ok(())
    })?;
    while device.stats()?.bytes_to_device == before && !mover.has_ended()? {
        std::thread::yield_now();
    }
    target.signal(Signal::KILL)?;
    target.wait_for_signal(Signal::KILL)?;
    mover.wait()
}
