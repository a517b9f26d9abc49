// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The driver goes at each step of a move: before the device has begun, while it copies, and while it does not answer.

use super::with_unbound;
use crate::cases::support::driver::Reloaded;
use crate::cases::support::inject::{ClearLater, Faults};
use crate::cases::support::prelude::*;
use hmm_uapi::client::Error;
use serde_json::{Value, json};
use std::sync::Barrier;
use std::time::{Duration, Instant};

pub(super) const CASES: &[Case] = &[
    Case::new("unload/unbind-while-copying-to-device-anon-4k", || {
        unbind_at(delay("bulk"), &to_device())
    }),
    Case::new("unload/unbind-while-copying-to-device-anon-thp", || {
        unbind_at(delay("bulk"), &to_device().huge())
    }),
    Case::new("unload/unbind-while-copying-to-system-anon-4k", || {
        unbind_at(delay("bulk"), &to_system())
    }),
    Case::new("unload/unbind-while-copying-to-system-anon-thp", || {
        unbind_at(delay("bulk"), &to_system().huge())
    }),
    Case::new("unload/unbind-while-copying-for-fault-anon-4k", || {
        unbind_at(delay("urgent"), &fault())
    }),
    Case::new("unload/unbind-while-stalled-to-device-anon-4k", || {
        unbind_at(stall("bulk"), &to_device())
    }),
    Case::new("unload/unbind-while-stalled-to-system-anon-4k", || {
        unbind_at(stall("bulk"), &to_system())
    }),
    Case::new("unload/unbind-while-stalled-fault-anon-4k", || {
        unbind_at(stall("urgent"), &fault())
    }),
    Case::new("unload/unbind-after-lost-completion-anon-4k", || {
        unbind_at(lose("bulk"), &to_device())
    }),
];

const PAGES: usize = 600;
/// How long the device does not answer before it comes back to its senses; less than what makes the driver give up
/// on it for good.
const STALL: Duration = Duration::from_secs(3);
/// How long a move may take to get to the device.
const LIMIT: Duration = Duration::from_secs(60);

/// What the device does, and whether it has to be told to stop.
struct Trouble {
    fault: Value,
    lasts: bool,
}

fn delay(queue: &str) -> Trouble {
    Trouble {
        fault: json!({ "action": "delay", "queue": queue, "microseconds": 700_000, "count": 2 }),
        lasts: false,
    }
}

fn stall(queue: &str) -> Trouble {
    Trouble {
        fault: json!({ "action": "stall", "queue": queue }),
        lasts: true,
    }
}

fn lose(queue: &str) -> Trouble {
    Trouble {
        fault: json!({ "action": "drop", "queue": queue, "count": 1 }),
        lasts: false,
    }
}

/// What is going on when the driver goes.
struct Move {
    starts_on_device: bool,
    huge: bool,
    work: fn(&Mover, &Memory) -> Result<()>,
}

impl Move {
    fn huge(mut self) -> Self {
        self.huge = true;
        self
    }
}

/// Moves, and takes for an answer that the device is gone.
fn call(mover: &Mover, memory: &Memory, direction: Direction) -> Result<()> {
    match mover.call(memory.range(), direction, MigrateFlags::default()) {
        Ok(_) => Ok(()),
        Err(error) => match error.downcast_ref() {
            Some(Error::Gone { .. }) => Ok(()),
            _ => Err(error),
        },
    }
}

fn to_device() -> Move {
    Move {
        starts_on_device: false,
        huge: false,
        work: |mover, memory| call(mover, memory, Direction::ToDevice),
    }
}

fn to_system() -> Move {
    Move {
        starts_on_device: true,
        huge: false,
        work: |mover, memory| call(mover, memory, Direction::ToSystem),
    }
}

fn fault() -> Move {
    Move {
        starts_on_device: true,
        huge: false,
        work: |_, memory| memory.check(1),
    }
}

/// Unbinds while the move is under way. Every byte is there afterwards, and the device works when it is bound again.
fn unbind_at(trouble: Trouble, what: &Move) -> Result<()> {
    let driver = Reloaded::with("timeout_ms=2000")?;
    let end = match trouble.lasts {
        true => Some(ClearLater::new(STALL)?),
        false => None,
    };
    let mover = Mover::open()?;
    let mut memory = match what.huge {
        true => Memory::huge(2)?,
        false => Memory::single(PAGES)?,
    };
    memory.fill(1);
    let memory = memory;
    if what.starts_on_device {
        mover.all_to_device(memory.range())?;
    }
    let faults = Faults::of_first_device()?;
    faults.add(trouble.fault)?;
    // A thread that begins maps its stack, which has to wait for a batch that the device does not answer. So both threads
    // run, and the time of the fault has begun, before anything moves.
    let run = Barrier::new(3);
    std::thread::scope(|scope| -> Result<()> {
        let moving = scope.spawn(|| {
            run.wait();
            (what.work)(&mover, &memory)
        });
        let unbinding = scope.spawn(|| -> Result<()> {
            run.wait();
            // The move is under way, at the device or on its way to it.
            std::thread::sleep(Duration::from_millis(200));
            with_unbound(|| Ok(()))
        });
        let begun = end.as_ref().map_or(Ok(()), ClearLater::begin);
        run.wait();
        begun?;
        if let Some(end) = end {
            end.wait()?;
        } else {
            let end = Instant::now() + LIMIT;
            while faults.fired()? == 0 {
                ensure!(Instant::now() < end, "no batch got to the device");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        for thread in [moving, unbinding] {
            match thread.join() {
                Ok(result) => result?,
                Err(_) => bail!("a thread panicked"),
            }
        }
        Ok(())
    })?;
    faults.clear()?;
    memory.check(1)?;
    drop(mover);
    let again = Mover::open()?;
    again.all_to_device(memory.range())?;
    memory.check(1)?;
    drop((again, faults, driver));
    Ok(())
}
