// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `storm/*`: processes are killed while the device evicts their pages. `control/exit-against-evict` is the same storm
//! against a driver that does not stand it.

use super::support::prelude::*;
use super::support::storm::Storm;
use super::support::{driver, kernel, nodes};
use hmm_uapi::client::{Device, Error, MigrateRequest};
use std::path::Path;
use std::time::Duration;

pub(super) const CASES: &[Case] = &[
    Case::new("storm/exit-against-unbind-anon-4k", exit_against_unbind).within(300),
    Case::new("storm/exit-against-pressure-anon-4k", exit_against_pressure).within(300),
];

const TIME: Duration = Duration::from_secs(20);

/// Moves memory as long as there is a device.
fn to_device(node: &Path, memory: &Memory) -> Result<()> {
    let moved = Device::open(node).and_then(|device| {
        device.migrate(&MigrateRequest {
            process: Process::Caller,
            range: memory.range(),
            direction: Direction::ToDevice,
            flags: MigrateFlags::default(),
        })
    });
    match moved {
        Ok(_) | Err(Error::NoDevice { .. } | Error::Gone { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Rages on the second device, which is small, so that it comes and goes quickly and is soon full.
fn rage(node: &Path, evict: &(dyn Fn() -> Result<()> + Sync)) -> Result<()> {
    let complained = kernel::has_complained()?;
    let storm = Storm {
        to_device: &|memory| to_device(node, memory),
        evict,
        is_over: &|| Ok(false),
    };
    let killed = storm.rage(TIME)?;
    eprintln!("{killed} processes were killed");
    ensure!(
        kernel::has_complained()? == complained,
        "the kernel has complained; its log says about what"
    );
    let mut memory = Memory::single(64)?;
    memory.fill(1);
    Mover::on(node)?.all_to_device(memory.range())?;
    memory.check(1)
}

fn exit_against_unbind() -> Result<()> {
    let count = nodes::all().len();
    let device = (driver::bound_devices()?.into_iter().nth(1))
        .context("the driver is bound to one device only")?;
    rage(&nodes::second()?, &|| {
        driver::unbind(&device)?;
        driver::bind(&device, count)
    })
}

/// More memory wants to be on the device than it has, so that it evicts what others have there.
fn exit_against_pressure() -> Result<()> {
    let node = nodes::second()?;
    let capacity = Device::open(&node)?.info()?.memory_bytes as usize / PAGE;
    let mut filler = Memory::anonymous(capacity + capacity / 4)?;
    filler.fill(1);
    let filler = filler;
    let before = Device::open(&node)?.stats()?.bytes_by_eviction;
    rage(&node, &|| to_device(&node, &filler))?;
    let evicted = Device::open(&node)?.stats()?.bytes_by_eviction - before;
    ensure!(evicted > 0, "nothing was evicted");
    filler.check(1)
}
