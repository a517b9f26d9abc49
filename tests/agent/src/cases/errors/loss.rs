// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Contents that the device has lost. An access gets an error, and never other bytes.

use crate::cases::support::driver::Reloaded;
use crate::cases::support::inject::Faults;
use crate::cases::support::prelude::*;
use rustix::process::Signal;
use serde_json::json;

pub(super) const CASES: &[Case] = &[
    Case::new("errors/lost-contents-anon-4k", || {
        lost(Memory::single(PAGES)?)
    }),
    Case::new("errors/lost-contents-anon-thp", || lost(Memory::huge(2)?)),
];

const PAGES: usize = 2 * HUGE / PAGE;

/// The device comes back without what it had. Half of the memory was there.
fn lost(mut memory: Memory) -> Result<()> {
    // Loads the driver anew when all else is gone.
    let _driver = Reloaded::with("timeout_ms=2000 loss_wait_ms=500")?;
    let device = Faults::of_first_device()?;
    let mover = Mover::open()?;
    memory.fill(1);
    // Gone before the driver, which waits for its pages.
    let memory = memory;
    let half = PAGES / 2;
    mover.all_to_device(memory.part(0..half))?;
    device.renew()?;
    device.add(json!({ "action": "drop", "queue": "bulk", "count": 1 }))?;
    // The call waits for the device to come back with what it had, in vain.
    let gone = mover.call(
        memory.part(0..half),
        Direction::ToSystem,
        MigrateFlags::default(),
    );
    ensure!(
        gone.as_ref().is_err_and(|error| matches!(
            error.downcast_ref(),
            Some(hmm_uapi::client::Error::Gone { .. })
        )),
        "a call for a device that has lost its contents: {gone:?}"
    );
    ensure!(device.fired()? > 0, "the device did nothing wrong");
    for (who, touch) in [
        ("a reader", (|memory| memory.touch(3..4)) as fn(&Memory)),
        ("a writer", |memory| {
            memory
                .word(5 * PAGE)
                .store(1, std::sync::atomic::Ordering::Relaxed)
        }),
    ] {
        fork(|| {
            touch(&memory);
            Ok(())
        })?
        .wait_for_signal(Signal::BUS)
        .with_context(|| format!("{who} of a lost page"))?;
    }
    memory.check_pages(half..PAGES, 1)
}
