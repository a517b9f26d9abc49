// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A device that is lost, and comes back.

use crate::cases::support::driver::{self, Reloaded};
use crate::cases::support::host;
use crate::cases::support::inject::Faults;
use crate::cases::support::nodes;
use crate::cases::support::prelude::*;
use hmm_control::{Again, Comeback, Deed, Harm, Question};
use hmm_uapi::client::Error;
use serde_json::{Value, json};
use std::fs;
use std::ops::Range;
use std::time::Duration;

/// How often a case looks whether something has happened.
const LOOK: Duration = Duration::from_millis(5);
/// How long users wait for a device that comes back, milliseconds: until the case's own limit.
pub(super) const LONG_WAIT: u32 = 3_600_000;
/// How long they wait for one that does not.
const SHORT_WAIT: u32 = 1_500;

/// By what a device is lost, and comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// It leaves batches unanswered, and the driver is bound to it anew.
    Unanswered,
    /// Its process is killed, and the host starts another on the same memory.
    Killed(Again),
}

impl Cause {
    /// The driver, which gives a device up by one batch without an answer, and whose users wait for it for so many milliseconds.
    pub(super) fn driver(self, wait_ms: u32) -> Result<Reloaded> {
        let timeout_ms = match self {
            Self::Unanswered => 2_000,
            // As the host tells the driver that starts devices again: longer than it takes to notice that a process hangs.
            Self::Killed(_) => 15_000,
        };
        Reloaded::with(&format!(
            "restart=0 timeout_ms={timeout_ms} loss_wait_ms={wait_ms}"
        ))
    }

    /// A fault by which a batch of a queue loses the device once it is copied.
    pub(super) fn unanswered(self, queue: &str) -> Value {
        match self {
            Self::Unanswered => json!({ "action": "drop", "queue": queue }),
            Self::Killed(_) => {
                json!({ "action": "die", "step": "after-copy", "queue": queue, "nth": 1 })
            }
        }
    }
}

/// A device that can be lost.
pub(super) struct Trial {
    pub(super) mover: Mover,
    pub(super) faults: Faults,
    device: String,
    cause: Cause,
    /// Whether its users wait for it until it is back. Otherwise it may be gone before the case has done anything about it.
    is_waited_for: bool,
    // Loads the driver anew when all else is closed.
    driver: Reloaded,
}

impl Trial {
    /// A device whose users wait for it as long as it takes.
    pub(super) fn new() -> Result<Self> {
        Self::with(LONG_WAIT, Cause::Unanswered)
    }

    /// The same, whose process is killed, and then as `again` says. For a guest with a host that restarts devices.
    pub(super) fn of_killed(again: Again) -> Result<Self> {
        Self::with(LONG_WAIT, Cause::Killed(again))
    }

    /// The same, whose users do not wait for long.
    pub(super) fn of_killed_with_short_wait() -> Result<Self> {
        Self::with(SHORT_WAIT, Cause::Killed(Again::No))
    }

    /// A device whose users do not wait for long.
    pub(super) fn with_short_wait() -> Result<Self> {
        Self::with(SHORT_WAIT, Cause::Unanswered)
    }

    fn with(wait_ms: u32, cause: Cause) -> Result<Self> {
        let driver = cause.driver(wait_ms)?;
        let faults = Faults::of_first_device()?;
        let devices = driver::bound_devices()?;
        Ok(Self {
            mover: Mover::open()?,
            faults,
            device: devices.first().context("no device is bound")?.clone(),
            cause,
            is_waited_for: wait_ms == LONG_WAIT,
            driver,
        })
    }

    /// Memory of so many pages on the device, filled from `seed`.
    pub(super) fn memory(&self, pages: usize, seed: u64) -> Result<Memory> {
        self.placed(Memory::single(pages)?, seed)
    }

    /// Fills memory, and moves it to the device.
    pub(super) fn placed(&self, mut memory: Memory, seed: u64) -> Result<Memory> {
        memory.fill(seed);
        self.mover.all_to_device(memory.range())?;
        Ok(memory)
    }

    /// The device is lost while it has nothing to do.
    pub(super) fn lose(&self) -> Result<()> {
        let before = counter("losses")?;
        match self.cause {
            Cause::Unanswered => {
                // One batch: a later one that is answered would answer for it.
                let mut memory = Memory::table()?;
                memory.fill(7);
                self.faults.add(self.unanswered("bulk"))?;
                // Other tasks may use the queue, too, and lose the device in place of this one.
                while counter("losses")? == before {
                    self.mover.call(
                        memory.part(0..4),
                        Direction::ToDevice,
                        MigrateFlags::default(),
                    )?;
                }
                self.forgive()?;
            }
            Cause::Killed(_) => self.kill(Comeback::Same)?,
        }
        wait_for_more("losses", before)
    }

    /// The device is lost while other tasks use it. Does `then` while it is lost, which brings it back.
    ///
    /// A task that waited for the device goes on when it is back, on the same queue. It may lose the device in place of the call
    /// made here, which then waits for the return of the device. So the call has a thread of its own.
    pub(super) fn lose_beside_others(&self, then: impl FnOnce() -> Result<()>) -> Result<()> {
        if let Cause::Killed(_) = self.cause {
            self.lose()?;
            return then();
        }
        let before = counter("losses")?;
        self.faults.add(self.unanswered("bulk"))?;
        std::thread::scope(|scope| {
            let caller = scope.spawn(|| -> Result<()> {
                let mover = Mover::open()?;
                let mut memory = Memory::table()?;
                memory.fill(7);
                while counter("losses")? == before {
                    moved(&mover, memory.part(0..4), Direction::ToDevice)?;
                }
                Ok(())
            });
            while counter("losses")? == before && !caller.is_finished() {
                std::thread::sleep(LOOK);
            }
            ensure!(
                counter("losses")? > before,
                "the device was not lost: {:?}",
                caller.join()
            );
            self.forgive()?;
            then()?;
            (caller.join()).unwrap_or_else(|_| bail!("a thread panicked"))
        })
    }

    /// The process of the device is killed, and the device comes back as asked for.
    pub(super) fn kill(&self, comeback: Comeback) -> Result<()> {
        self.harm(Deed::Kill, comeback)
    }

    /// Something else is done to the process of the device, which comes back with all it had.
    pub(super) fn suffer(&self, deed: Deed) -> Result<()> {
        self.harm(deed, Comeback::Same)
    }

    fn harm(&self, deed: Deed, comeback: Comeback) -> Result<()> {
        let Cause::Killed(again) = self.cause else {
            bail!("a device that nobody starts again must not be killed");
        };
        let harm = Harm {
            deed,
            again,
            comeback,
        };
        host::ask(&Question::Harm { index: 0, harm }).map(drop)
    }

    /// A fault by which a batch of a queue loses the device before anything of it is copied.
    pub(super) fn not_executed(&self, queue: &str) -> Value {
        match self.cause {
            Cause::Unanswered => json!({ "action": "stall", "queue": queue }),
            Cause::Killed(_) => {
                json!({ "action": "die", "step": "before-copy", "queue": queue, "nth": 1 })
            }
        }
    }

    /// A fault by which a batch of a queue loses the device once it is copied.
    pub(super) fn unanswered(&self, queue: &str) -> Value {
        self.cause.unanswered(queue)
    }

    /// Takes the faults away. Those of a process that died are gone with it.
    pub(super) fn forgive(&self) -> Result<()> {
        match self.cause {
            Cause::Unanswered => self.faults.clear(),
            Cause::Killed(_) => Ok(()),
        }
    }

    /// The device comes back with all it had.
    pub(super) fn come_back(&self) -> Result<()> {
        ensure!(self.is_waited_for, "it may be gone by now");
        match self.cause {
            Cause::Unanswered => {
                let before = counter("returns")?;
                self.release()?;
                driver::bind_now(&self.device)?;
                ensure!(
                    counter("returns")? == before + 1,
                    "the device was not counted as back"
                );
            }
            Cause::Killed(_) => {
                while counter("returns")? < counter("losses")? {
                    std::thread::sleep(LOOK);
                }
            }
        }
        Ok(())
    }

    /// The name of the device on the virtio bus.
    pub(super) fn device(&self) -> String {
        self.device.clone()
    }

    /// Closes the node. The driver is loaded anew when the result is dropped.
    pub(super) fn close(self) -> Reloaded {
        self.driver
    }

    /// The driver is taken from the device.
    pub(super) fn unbind(&self) -> Result<()> {
        driver::unbind(&self.device)
    }

    /// The driver is taken from the device, unless that has happened.
    pub(super) fn release(&self) -> Result<()> {
        match driver::bound_devices()?.contains(&self.device) {
            true => driver::unbind(&self.device),
            false => Ok(()),
        }
    }

    /// The driver is taken from the device, and refuses to be bound to it again.
    pub(super) fn is_refused(&self) -> Result<()> {
        self.release()?;
        ensure!(
            driver::bind_now(&self.device).is_err(),
            "the driver took a device that has other contents"
        );
        Ok(())
    }

    /// The driver is bound to the device as to one that it does not know.
    pub(super) fn begin_anew(&self) -> Result<()> {
        driver::bind(&self.device, 1)
    }

    /// Nobody waits for the device any more.
    pub(super) fn wait_until_gone(&self) {
        while nodes::exist() {
            std::thread::sleep(LOOK);
        }
    }
}

/// Moves a range, as far as there is a device: one that goes meanwhile may end the call.
pub(super) fn moved(mover: &Mover, range: Range<u64>, direction: Direction) -> Result<()> {
    match mover.call(range, direction, MigrateFlags::default()) {
        Ok(_) => Ok(()),
        Err(error) => match error.downcast_ref() {
            Some(Error::Gone { .. }) => Ok(()),
            _ => Err(error),
        },
    }
}

/// A counter of the first device in debugfs.
pub(super) fn counter(name: &str) -> Result<u64> {
    const PATH: &str = "/sys/kernel/debug/hmm0/counters";
    let text = match fs::read_to_string(PATH) {
        Ok(text) => text,
        Err(_) if !std::path::Path::new("/sys/kernel/debug").exists() => {
            return Err(skip("this kernel has no debugfs"));
        }
        Err(error) => return Err(error).context(PATH),
    };
    let value = (text.lines())
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
        .with_context(|| format!("there is no counter {name}"))?;
    Ok(value.parse()?)
}

/// Waits until a child has begun to wait for the device, which raises a counter of waits.
pub(super) fn wait_for_waiter(name: &str, before: u64, child: &Child) -> Result<()> {
    while counter(name)? <= before {
        ensure!(!child.has_ended()?, "the child did not wait for the device");
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// Waits until a task has begun to wait for the device since a counter had a value.
pub(super) fn wait_for_more(name: &str, before: u64) -> Result<()> {
    while counter(name)? <= before {
        std::thread::sleep(LOOK);
    }
    Ok(())
}
