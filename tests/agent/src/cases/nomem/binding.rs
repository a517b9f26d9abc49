// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The driver comes and goes.

use super::call_done_or_no_memory;
use crate::cases::support::failing::{Failing, Steps};
use crate::cases::support::prelude::*;
use crate::cases::support::{driver, nodes};
use hmm_uapi::client::MigrateRequest;

pub(super) const CASES: &[Case] = &[
    Case::new("nomem/unbind-anon-4k", unbind).within(300),
    Case::new("nomem/bind", bind).within(300),
    Case::new("nomem/first-request-anon-4k", first_request).within(300),
    Case::new("nomem/load", load).within(300),
];

const PAGES: usize = 24;

/// Makes a device's memory known to the kernel, and warns where that fails.
const WARNS: &str = "add_pages";

/// The second device is small, so that binding it does not take long.
struct Second {
    device: String,
    node: std::path::PathBuf,
    nodes: usize,
}

impl Second {
    fn new() -> Result<Self> {
        let node = nodes::second()?;
        let device = (driver::bound_devices()?.into_iter().nth(1))
            .context("the driver is bound to one device only")?;
        Ok(Self {
            device,
            node,
            nodes: nodes::all().len(),
        })
    }

    fn is_bound(&self) -> Result<bool> {
        Ok(driver::bound_devices()?.contains(&self.device))
    }

    fn ensure_bound(&self) -> Result<()> {
        match self.is_bound()? {
            true => Ok(()),
            false => driver::bind(&self.device, self.nodes),
        }
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        // Where this fails the next case finds one device less and says so.
        let _ = self.ensure_bound();
    }
}

/// Pages come home although memory for them fails once.
fn unbind() -> Result<()> {
    let second = Second::new()?;
    let mut memory = Memory::single(PAGES)?;
    memory.fill(1);
    let memory = memory;
    Failing::new()?.sweep(
        Steps::Widening,
        || {
            second.ensure_bound()?;
            Mover::on(&second.node)?.all_to_device(memory.range())
        },
        |()| driver::unbind(&second.device),
        |_| {
            ensure!(
                second.is_bound()? == second.node.exists(),
                "the binding and the node do not agree"
            );
            memory.check(1)
        },
    )?;
    second.ensure_bound()?;
    Mover::on(&second.node)?.all_to_device(memory.range())?;
    memory.check(1)
}

/// A device whose driver gets no memory is left alone, and can be bound later.
fn bind() -> Result<()> {
    let second = Second::new()?;
    Failing::new()?.sparing(WARNS)?.sweep(
        Steps::Widening,
        || match second.is_bound()? {
            true => driver::unbind(&second.device),
            false => Ok(()),
        },
        |()| driver::bind_now(&second.device),
        |_| {
            ensure!(
                second.is_bound()? == second.node.exists(),
                "the binding and the node do not agree"
            );
            Ok(())
        },
    )?;
    second.ensure_bound()?;
    let mut memory = Memory::single(PAGES)?;
    memory.fill(1);
    Mover::on(&second.node)?.all_to_device(memory.range())?;
    memory.check(1)
}

/// What the first request after that makes, later ones find.
fn first_request() -> Result<()> {
    let second = Second::new()?;
    let mut memory = Memory::single(PAGES)?;
    memory.fill(1);
    let memory = memory;
    Failing::new()?.sweep(
        Steps::Every,
        || {
            if second.is_bound()? {
                driver::unbind(&second.device)?;
            }
            second.ensure_bound()?;
            Mover::on(&second.node)
        },
        |mover| {
            let result = mover.device.migrate(&MigrateRequest {
                process: Process::Caller,
                range: memory.range(),
                direction: Direction::ToDevice,
                flags: MigrateFlags::default(),
            });
            (mover, result)
        },
        |(mover, result)| {
            call_done_or_no_memory(result)?;
            memory.check(1)?;
            mover.all_to_device(memory.range())?;
            memory.check(1)
        },
    )
}

/// A module that does not load leaves nothing, and one that loads without its devices can be removed.
fn load() -> Result<()> {
    let failing = Failing::new()?.sparing(WARNS)?;
    let swept = failing.sweep(
        Steps::Widening,
        || match driver::is_loaded() {
            true => driver::unload().context("cannot remove the module"),
            false => Ok(()),
        },
        |()| driver::load_now(),
        |result| {
            ensure!(
                result.is_ok() == driver::is_loaded(),
                "loading gave {result:?}, and loaded is {}",
                driver::is_loaded()
            );
            Ok(())
        },
    );
    driver::restore()?;
    swept?;
    let mut memory = Memory::single(PAGES)?;
    memory.fill(1);
    Mover::open()?.all_to_device(memory.range())?;
    memory.check(1)
}
