// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `bounce/*`: the kernel gives the device bounce buffers in place of pages (`swiotlb=force`). What the device writes
//! reaches a page only when the driver undoes the page's DMA mapping. These cases run only when they are asked for by
//! their whole name, in a guest that is booted so.

use super::support::bounce_buffers;
use super::support::driver::{self, Reloaded};
use super::support::gate::Gate;
use super::support::inject::Faults;
use super::support::intx::Intx;
use super::support::jobs::Jobs;
use super::support::kernel;
use super::support::prelude::*;
use hmm_uapi::client::{Error, JobRequest};
use rustix::process::Signal;
use serde_json::json;
use std::time::{Duration, Instant};

pub(super) const CASES: &[Case] = &[
    Case::new("bounce/round-trip-anon-4k", round_trip),
    Case::new("bounce/jobs-are-refused", jobs_are_refused),
    Case::new("bounce/torn-down-after-answer-anon-4k", torn_down),
];

const PAGES: usize = HUGE / PAGE;
/// The driver gives a device up at this time-out in a row.
const LAST_TIMEOUT: u64 = 4;
/// How long the device takes for the batch, so that the driver's thread sleeps when the answer comes.
const DELAY: Duration = Duration::from_millis(200);

/// Bounce buffers are in use, and none is left over.
fn round_trip() -> Result<()> {
    let before = bounce_buffers::used()?;
    let faults = Faults::of_first_device()?;
    let mover = Mover::open()?;
    let mut memory = Memory::table()?;
    memory.fill(1);
    mover.all_to_device(memory.range())?;
    let delay = DELAY.as_micros() as u64;
    faults.add(json!({ "action": "delay", "queue": "bulk", "microseconds": delay }))?;
    std::thread::scope(|scope| -> Result<()> {
        let moving = scope
            .spawn(|| mover.call(memory.range(), Direction::ToSystem, MigrateFlags::default()));
        let mut most = 0;
        while !moving.is_finished() {
            most = bounce_buffers::used()?.max(most);
        }
        match moving.join() {
            Ok(moved) => moved?.expect(PAGES, none())?,
            Err(_) => bail!("the mover panicked"),
        }
        ensure!(
            most >= before + bounce_buffers::PER_PAGE * PAGES as u64,
            "{PAGES} pages moved with {most} bounce buffers at once, of which {before} were in use before"
        );
        Ok(())
    })?;
    memory.check(1)?;
    let after = bounce_buffers::used()?;
    ensure!(after == before, "{before} bounce buffers became {after}");
    Ok(())
}

/// A job would see other bytes than the process does, so none begins, and nothing of it is left.
fn jobs_are_refused() -> Result<()> {
    let (jobs, mover) = (Jobs::open()?, Mover::open()?);
    let mut memory = Memory::single(PAGES)?;
    memory.fill(1);
    for is_on_device in [false, true] {
        if is_on_device {
            mover.all_to_device(memory.range())?;
        }
        let begun = jobs.begin(&JobRequest::fill(memory.range(), 0));
        ensure!(
            matches!(begun, Err(Error::Unsupported { .. })),
            "a job was to be refused: {begun:?}"
        );
    }
    memory.check(1)
}

/// The device has answered for a batch, and the driver's thread has not noticed when another thread gives the device up
/// and deletes its queues. The pages of the batch have their contents nevertheless.
fn torn_down() -> Result<()> {
    let before = bounce_buffers::used()?;
    torn_down_after_answer()?;
    let after = bounce_buffers::used()?;
    ensure!(after == before, "{before} bounce buffers became {after}");
    Ok(())
}

fn torn_down_after_answer() -> Result<()> {
    let timeout = Duration::from_secs(1) * kernel::patience();
    let _driver = Reloaded::with(&format!(
        "timeout_ms={} loss_wait_ms=500",
        timeout.as_millis()
    ))?;
    let faults = Faults::of_first_device()?;
    let (ready, begin) = (Gate::new()?, Gate::new()?);
    // A page of its own, which it loses with the device.
    let faulting = fork(|| {
        let mut page = Memory::single(1)?;
        page.fill(2);
        Mover::open()?.all_to_device(page.range())?;
        ready.open()?;
        begin.wait()?;
        page.touch(0..1);
        bail!("a page is there that the device never gave")
    })?;
    ready.wait()?;
    let mover = Mover::open()?;
    let mut memory = Memory::table()?;
    memory.fill(1);
    mover.all_to_device(memory.range())?;
    let delay = DELAY.as_micros() as u64;
    faults.add(json!({ "action": "drop", "queue": "urgent" }))?;
    faults.add(json!({ "action": "delay", "queue": "bulk", "microseconds": delay }))?;
    let intx = Intx::of(
        driver::bound_devices()?
            .first()
            .context("no device is bound")?,
    )?;
    let before = mover.device.stats()?;
    begin.open()?;
    // The fault's last batch is on its way. The device was started anew for the last time.
    let stats = loop {
        let stats = mover.device.stats()?;
        if stats.batches - before.batches >= LAST_TIMEOUT {
            break stats;
        }
        std::thread::yield_now();
    };
    ensure!(
        stats.timeouts - before.timeouts == LAST_TIMEOUT - 1,
        "{} time-outs before the last batch",
        stats.timeouts - before.timeouts
    );
    // The answer comes without an interrupt, so this sleeps until the other's time-out stops the queues. Its own time-out
    // comes half as long after that.
    std::thread::sleep(timeout / 2);
    let masked = intx.mask()?;
    let started = Instant::now();
    let moved = mover.call(memory.range(), Direction::ToSystem, MigrateFlags::default())?;
    let took = started.elapsed();
    drop(masked);
    faulting
        .wait_for_signal(Signal::BUS)
        .context("the thread whose batch was not answered")?;
    let timeouts = mover.device.stats()?.timeouts - before.timeouts;
    ensure!(
        timeouts == LAST_TIMEOUT && took > DELAY,
        "the batch came back after {took:?} and {timeouts} time-outs: not by the end of the queues"
    );
    moved.expect(PAGES, none())?;
    memory.check(1)
}
