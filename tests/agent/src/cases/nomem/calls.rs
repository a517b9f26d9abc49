// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Opening and closing the node, and the calls that change nothing.

use super::call_done_or_no_memory;
use crate::cases::support::failing::{Failing, Steps};
use crate::cases::support::nodes;
use crate::cases::support::prelude::*;
use hmm_uapi::client::Device;

pub(super) const CASES: &[Case] = &[
    Case::new("nomem/open", open),
    Case::new("nomem/close", close),
    Case::new("nomem/info", info),
    Case::new("nomem/stats", stats),
    Case::new("nomem/residency-anon-4k", residency),
];

const PAGES: usize = 600;

fn open() -> Result<()> {
    let node = nodes::first();
    Failing::new()?.sweep(
        Steps::Every,
        || Ok(()),
        |()| Device::open(&node),
        |result| {
            call_done_or_no_memory(result)?;
            Device::open(&node)?.info().map(drop).map_err(Into::into)
        },
    )
}

/// Closing has no answer; it must not leave the node in use.
fn close() -> Result<()> {
    let node = nodes::first();
    Failing::new()?.sweep(
        Steps::Every,
        || Device::open(&node).map_err(Into::into),
        |device| {
            // The pages of the process stay on the device, and one of them goes by the way.
            let asked = device.info();
            drop(device);
            asked
        },
        |result| call_done_or_no_memory(result).map(drop),
    )?;
    crate::cases::support::driver::unload().context("the node is still in use")?;
    crate::cases::support::driver::load()
}

fn info() -> Result<()> {
    let device = Device::open(nodes::first())?;
    Failing::new()?.sweep(
        Steps::Every,
        || Ok(()),
        |()| device.info(),
        |result| {
            call_done_or_no_memory(result)?;
            ensure!(device.info()?.memory_bytes > 0, "a device without memory");
            Ok(())
        },
    )
}

fn stats() -> Result<()> {
    let device = Device::open(nodes::first())?;
    Failing::new()?.sweep(
        Steps::Every,
        || Ok(()),
        |()| device.stats(),
        |result| {
            call_done_or_no_memory(result)?;
            device.stats().map(drop).map_err(Into::into)
        },
    )
}

fn residency() -> Result<()> {
    let mover = Mover::open()?;
    let mut memory = Memory::single(PAGES)?;
    memory.fill(1);
    mover.all_to_device(memory.part(0..200))?;
    Failing::new()?.sweep(
        Steps::Every,
        || Ok(()),
        |()| mover.device.residency_map(Process::Caller, memory.range()),
        |result| {
            if let Some((counts, _)) = call_done_or_no_memory(result)? {
                ensure!(counts.device_pages == 200, "a wrong answer: {counts:?}");
            }
            mover.expect_residency(memory.range(), PAGES - 200, 200)
        },
    )?;
    memory.check(1)
}
