// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A device that is lost, and comes back.

use crate::cases::support::driver::{self, Reloaded};
use crate::cases::support::inject::Faults;
use crate::cases::support::nodes;
use crate::cases::support::prelude::*;
use serde_json::json;
use std::fs;
use std::time::Duration;

/// How often a case looks whether something has happened.
const LOOK: Duration = Duration::from_millis(5);
/// How long users wait for a device that comes back, milliseconds: until the case's own limit.
const LONG_WAIT: u32 = 3_600_000;
/// How long they wait for one that does not.
const SHORT_WAIT: u32 = 1_500;

/// A device that can be lost.
pub(super) struct Trial {
    pub(super) mover: Mover,
    pub(super) faults: Faults,
    device: String,
    // Loads the driver anew when all else is closed.
    driver: Reloaded,
}

impl Trial {
    /// A device whose users wait for it as long as it takes.
    pub(super) fn new() -> Result<Self> {
        Self::with(LONG_WAIT)
    }

    /// A device whose users do not wait for long.
    pub(super) fn with_short_wait() -> Result<Self> {
        Self::with(SHORT_WAIT)
    }

    fn with(wait_ms: u32) -> Result<Self> {
        let driver = Reloaded::with(&format!("restart=0 timeout_ms=2000 loss_wait_ms={wait_ms}"))?;
        let faults = Faults::of_first_device()?;
        let devices = driver::bound_devices()?;
        Ok(Self {
            mover: Mover::open()?,
            faults,
            device: devices.first().context("no device is bound")?.clone(),
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

    /// The device is lost: it leaves one batch unanswered. The pages of that batch stay where they were.
    pub(super) fn lose(&self) -> Result<()> {
        let mut memory = Memory::single(4)?;
        memory.fill(7);
        let before = counter("losses")?;
        self.faults
            .add(json!({ "action": "drop", "queue": "bulk", "count": 1 }))?;
        self.mover
            .call(memory.range(), Direction::ToDevice, MigrateFlags::default())?
            .expect(0, &[(SkipReason::CopyFailed, 4)])?;
        self.faults.clear()?;
        ensure!(
            counter("losses")? == before + 1,
            "the device was not counted as lost"
        );
        memory.check(7)
    }

    /// The driver is bound anew to the device, which is there with all it had.
    pub(super) fn come_back(&self) -> Result<()> {
        let before = counter("returns")?;
        driver::unbind(&self.device)?;
        driver::bind_now(&self.device)?;
        ensure!(
            counter("returns")? == before + 1,
            "the device was not counted as back"
        );
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

    /// The driver is taken from the device, and refuses to be bound to it again.
    pub(super) fn is_refused(&self) -> Result<()> {
        driver::unbind(&self.device)?;
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

/// Waits until a task has begun to wait for the device since a counter had a value.
pub(super) fn wait_for_more(name: &str, before: u64) -> Result<()> {
    while counter(name)? <= before {
        std::thread::sleep(LOOK);
    }
    Ok(())
}
