// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `ends/*`: what no later case would survive. They run only when they are asked for by their whole name, each in a guest
//! of its own.

use super::support::gate::Gate;
use super::support::host;
use super::support::nodes;
use super::support::prelude::*;
use hmm_control::Question;
use hmm_uapi::client::Error;
use rustix::system::{RebootCommand, reboot};
use std::time::{Duration, Instant};

pub(super) const CASES: &[Case] = &[
    Case::new("ends/power-off-while-moving", power_off),
    Case::new("ends/unplug-while-moving", unplug),
];

const PAGES: usize = 600;
/// How long a device may take to be gone. Its memory comes home first.
const LIMIT: Duration = Duration::from_secs(60);

/// A process that moves its memory back and forth until the device is gone, and checks it.
fn mover(seed: u64, ready: &Gate) -> Result<Child> {
    fork(|| {
        let mover = Mover::open()?;
        let mut memory = Memory::single(PAGES)?;
        memory.fill(seed);
        mover.all_to_device(memory.range())?;
        ready.open()?;
        loop {
            for direction in [Direction::ToDevice, Direction::ToSystem] {
                match mover.call(memory.range(), direction, MigrateFlags::default()) {
                    Ok(_) => {}
                    Err(error) => {
                        return match error.downcast_ref() {
                            Some(Error::Gone { .. }) => memory.check(seed),
                            _ => Err(error),
                        };
                    }
                }
            }
            memory.check(seed)?;
        }
    })
}

fn movers() -> Result<Vec<Child>> {
    let ready = Gate::new()?;
    let children = (1..=3)
        .map(|seed| mover(seed, &ready))
        .collect::<Result<Vec<_>>>()?;
    for _ in 0..children.len() {
        ready.wait()?;
    }
    Ok(children)
}

/// The system goes down under processes whose memory is on its way.
fn power_off() -> Result<()> {
    let _children = movers()?;
    host::ask(&Question::PowerOffAhead)?;
    reboot(RebootCommand::PowerOff).context("cannot power off")
}

/// The first device is pulled while processes move.
fn unplug() -> Result<()> {
    let children = movers()?;
    let mut memory = Memory::huge(2)?;
    memory.fill(9);
    let memory = memory;
    Mover::open()?.all_to_device(memory.range())?;
    host::ask(&Question::Unplug { index: 0 })?;
    let end = Instant::now() + LIMIT;
    while nodes::exist() {
        ensure!(Instant::now() < end, "the device is still there");
        memory.check(9)?;
        std::thread::sleep(Duration::from_millis(20));
    }
    children.into_iter().try_for_each(Child::wait)?;
    memory.check(9)
}
