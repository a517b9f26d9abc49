// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `trace/*`: the trace events tell exactly what happened, and debugfs agrees with the ioctls.

use super::support::driver;
use super::support::gate::Gate;
use super::support::inject::Faults;
use super::support::prelude::*;
use super::support::tracefs::{Event, Recording};
use serde_json::json;
use std::collections::BTreeMap;

pub(super) const CASES: &[Case] = &[
    Case::new("trace/batches-anon-4k", batches),
    Case::new("trace/batch-refused-anon-4k", batch_refused),
    Case::new("trace/batch-lost-anon-4k", batch_lost),
    Case::new("trace/faults-anon-4k", faults),
    Case::new("trace/skips-by-reason-anon-4k", skips),
    Case::new("trace/evictions-at-unbind-anon-4k", evictions_at_unbind),
    Case::new("trace/loss-of-contents", loss),
    Case::new("trace/debugfs-agrees", debugfs),
];

const PAGES: usize = 700;
const BYTES: u64 = (PAGES * PAGE) as u64;

fn sum<'a>(events: impl IntoIterator<Item = &'a Event>, field: &str) -> Result<u64> {
    events.into_iter().map(|event| event.number(field)).sum()
}

fn filled(seed: u64) -> Result<Memory> {
    let mut memory = Memory::single(PAGES)?;
    memory.fill(seed);
    Ok(memory)
}

/// The batches in a recording by their cookie: what was submitted, and what came of it.
fn pairs(recording: &Recording) -> Result<Vec<(Event, Event)>> {
    let mut submitted = BTreeMap::new();
    let mut pairs = Vec::new();
    for event in recording.events()? {
        let cookie = match event.name.as_str() {
            "batch_submit" | "batch_done" => event.number("cookie")?,
            _ => continue,
        };
        if event.name == "batch_submit" {
            ensure!(
                submitted.insert(cookie, event).is_none(),
                "batch {cookie:#x} was submitted twice"
            );
        } else {
            let submit = submitted
                .remove(&cookie)
                .with_context(|| format!("{event:?} was not submitted"))?;
            for field in ["dev", "queue", "direction", "entries", "bytes"] {
                ensure!(
                    submit.word(field)? == event.word(field)?,
                    "{field} of {submit:?} and {event:?} differ"
                );
            }
            pairs.push((submit, event));
        }
    }
    ensure!(submitted.is_empty(), "never done: {submitted:?}");
    Ok(pairs)
}

fn batches() -> Result<()> {
    let mover = Mover::open()?;
    let memory = filled(1)?;
    let before = mover.device.stats()?;
    let recording = Recording::start()?;
    mover.all_to_device(memory.range())?;
    mover.to_system(memory.range())?.expect(PAGES, none())?;
    let after = mover.device.stats()?;
    let pairs = pairs(&recording)?;
    ensure!(
        pairs.len() as u64 == after.batches - before.batches,
        "{} batches in the trace, {} counted",
        pairs.len(),
        after.batches - before.batches
    );
    for direction in ["to_device", "to_system"] {
        let of = pairs
            .iter()
            .filter(|(submit, _)| submit.is("direction", direction));
        let bytes = sum(of.map(|(submit, _)| submit), "bytes")?;
        ensure!(
            bytes == BYTES,
            "{bytes} bytes {direction} in the trace, {BYTES} moved"
        );
    }
    for (submit, done) in &pairs {
        ensure!(
            submit.is("trigger", "user") && done.is("result", "ok"),
            "{submit:?} was to be somebody's wish, and to succeed: {done:?}"
        );
        ensure!(
            done.number("entries_ok")? == done.number("entries")? && done.number("queue")? >= 3,
            "not every entry was executed, or not on a bulk queue: {done:?}"
        );
    }
    memory.check(1)
}

fn batch_refused() -> Result<()> {
    let device = Faults::of_first_device()?;
    let mover = Mover::open()?;
    let memory = filled(1)?;
    let recording = Recording::start()?;
    device.add(json!({ "action": "fail", "on": "entry", "op": "to_device", "nth": 37, "status": "internal" }))?;
    mover
        .call(memory.range(), Direction::ToDevice, MigrateFlags::default())?
        .expect(PAGES - 1, &[(SkipReason::CopyFailed, 1)])?;
    let pairs = pairs(&recording)?;
    let failed: Vec<_> = pairs
        .iter()
        .filter(|(_, done)| done.is("result", "failed"))
        .collect();
    ensure!(failed.len() == 1, "one batch was to fail: {pairs:?}");
    let (_, done) = failed[0];
    ensure!(
        done.number("entries_ok")? + 1 == done.number("entries")?,
        "one entry was to fail: {done:?}"
    );
    let skipped = recording.named("skip")?;
    ensure!(
        skipped.len() == 1
            && skipped[0].is("reason", "copy_failed")
            && skipped[0].number("pages")? == 1,
        "one page was skipped because its copy failed: {skipped:?}"
    );
    memory.check(1)
}

fn batch_lost() -> Result<()> {
    let _driver = driver::Reloaded::with("timeout_ms=2000")?;
    let device = Faults::of_first_device()?;
    let mover = Mover::open()?;
    let memory = filled(1)?;
    let before = mover.device.stats()?;
    let recording = Recording::start()?;
    device.add(json!({ "action": "drop", "queue": "bulk", "count": 1 }))?;
    mover.call(memory.range(), Direction::ToDevice, MigrateFlags::default())?;
    let after = mover.device.stats()?;
    let pairs = pairs(&recording)?;
    let with = |result: &str| {
        let done = pairs.iter().filter(|(_, done)| done.is("result", result));
        done.count() as u64
    };
    // Completions come in order, so that of the batch behind it may be taken for the one that is missing.
    let (timeouts, nonsense) = (with("timeout"), with("bad_answer"));
    ensure!(
        timeouts + nonsense > 0
            && timeouts == after.timeouts - before.timeouts
            && nonsense == after.protocol_errors - before.protocol_errors,
        "{} time-outs and {} bad answers were counted: {pairs:?}",
        after.timeouts - before.timeouts,
        after.protocol_errors - before.protocol_errors
    );
    // A batch that was under way beside it comes back with the reset. All others succeed.
    let others = with("ok") + with("reset") + with("not_accepted");
    ensure!(
        timeouts + nonsense + others == pairs.len() as u64,
        "{pairs:?}"
    );
    ensure!(
        recording.named("loss")?.is_empty(),
        "nothing was lost, and the trace says so"
    );
    drop(recording);
    memory.check(1)
}

fn faults() -> Result<()> {
    let mover = Mover::open()?;
    let memory = filled(1)?;
    mover.all_to_device(memory.range())?;
    let before = mover.device.stats()?;
    let recording = Recording::start()?;
    memory.check(1)?;
    let after = mover.device.stats()?;
    let faults = recording.named("fault")?;
    ensure!(
        faults.len() as u64 == after.cpu_faults - before.cpu_faults,
        "{} faults in the trace, {} counted",
        faults.len(),
        after.cpu_faults - before.cpu_faults
    );
    ensure!(
        sum(&faults, "bytes")? == BYTES,
        "{BYTES} bytes came home: {faults:?}"
    );
    ensure!(
        after.bytes_by_fault - before.bytes_by_fault == BYTES,
        "the counters say {}",
        after.bytes_by_fault - before.bytes_by_fault
    );
    for fault in &faults {
        ensure!(
            memory.range().contains(&fault.number("address")?)
                && fault.is("trigger", "cpu_fault")
                && (fault.is("result", "ok") || fault.is("result", "retry"))
                && fault.number("ns")? > 0,
            "{fault:?}"
        );
    }
    for (submit, done) in pairs(&recording)? {
        ensure!(
            submit.is("trigger", "cpu_fault") && submit.number("queue")? == 2,
            "a fault's batch goes to the urgent queue: {submit:?}"
        );
        ensure!(done.is("result", "ok"), "{done:?}");
    }
    Ok(())
}

fn skips() -> Result<()> {
    let mover = Mover::open()?;
    let mut memory = Memory::single(PAGES)?;
    // 100 pages are there already, 60 are holes, 40 have no mapping.
    memory.fill_pages(0..PAGES - 100, 1);
    mover.all_to_device(memory.part(200..300))?;
    memory.unmap(PAGES - 40..PAGES)?;
    let recording = Recording::start()?;
    let moved = mover.to_device(memory.range())?;
    moved.expect(
        PAGES - 200,
        &[
            (SkipReason::Unmapped, 40),
            (SkipReason::Hole, 60),
            (SkipReason::Already, 100),
        ],
    )?;
    let mut by_reason: BTreeMap<String, u64> = BTreeMap::new();
    for skip in recording.named("skip")? {
        let (range, pages) = (skip.range("range")?, skip.number("pages")?);
        ensure!(
            skip.is("trigger", "user")
                && memory.range().start <= range.start
                && range.end <= memory.range().end
                && pages <= (range.end - range.start) / PAGE as u64,
            "{skip:?}"
        );
        *by_reason
            .entry(skip.word("reason")?.to_owned())
            .or_default() += pages;
    }
    // The mover retries pages that another task had locked, so more pages may be counted as staying.
    for (reason, pages) in moved.skipped.named() {
        let told = by_reason.remove(reason).unwrap_or(0);
        ensure!(
            told >= pages && told.is_multiple_of(pages),
            "{pages} pages were skipped as {reason}, and the trace tells of {told}"
        );
    }
    by_reason.remove(SkipReason::Busy.name());
    by_reason.remove(SkipReason::LostRace.name());
    ensure!(
        by_reason.is_empty(),
        "the trace has reasons of its own: {by_reason:?}"
    );
    memory.check_pages(0..PAGES - 100, 1)
}

fn evictions_at_unbind() -> Result<()> {
    let devices = driver::bound_devices()?;
    let device = devices
        .first()
        .context("the driver is bound to no device")?;
    let (ready, check) = (Gate::new()?, Gate::new()?);
    let mut memory = Memory::single(PAGES)?;
    let child = fork(|| {
        memory.fill(1);
        Mover::open()?.all_to_device(memory.range())?;
        ready.open()?;
        check.wait()?;
        memory.check(1)
    })?;
    ready.wait()?;
    let recording = Recording::start()?;
    driver::unbind(device)?;
    let evictions = recording.named("evict")?;
    let pairs = pairs(&recording);
    driver::bind(device, devices.len())?;
    ensure!(
        sum(&evictions, "bytes")? == BYTES,
        "{BYTES} bytes were on the device: {evictions:?}"
    );
    for evict in &evictions {
        ensure!(
            evict.is("trigger", "unbind") && evict.is("dev", device),
            "{evict:?}"
        );
    }
    for (submit, _) in pairs? {
        ensure!(submit.is("trigger", "unbind"), "{submit:?}");
    }
    check.open()?;
    child.wait()
}

/// The value of `name=` or `name ` in a line.
fn value(line: &str, name: &str) -> Option<u64> {
    let (_, rest) = line.split_once(name)?;
    rest.get(1..)?.split_whitespace().next()?.parse().ok()
}

/// The counters in debugfs are those of the ioctl, and every step was timed as often as it was taken.
fn debugfs() -> Result<()> {
    let folder = std::path::Path::new("/sys/kernel/debug/hmm0");
    if !folder.is_dir() {
        return Err(skip("this kernel has no debugfs"));
    }
    let counts = |step: &str, trigger: &str| -> Result<u64> {
        let text = std::fs::read_to_string(folder.join("times").join(step))?;
        let mut lines = text
            .lines()
            .filter(|line| line.starts_with(&format!("trigger={trigger} ")));
        let Some(whole) = lines.next() else {
            return Ok(0);
        };
        let all = value(whole, " count").with_context(|| format!("no count in '{whole}'"))?;
        let buckets: Option<u64> = lines.map(|line| value(line, " count")).sum();
        ensure!(
            buckets == Some(all),
            "the buckets of {step} do not sum up to {all}: {text}"
        );
        Ok(all)
    };
    let mover = Mover::open()?;
    let memory = filled(1)?;
    let steps = [
        "setup",
        "destinations",
        "submit",
        "wait",
        "pages",
        "finalize",
    ];
    let before: Vec<u64> = steps
        .iter()
        .map(|step| counts(step, "user"))
        .collect::<Result<_>>()?;
    let faults_before = counts("fault", "cpu_fault")?;
    let stats_before = mover.device.stats()?;
    mover.all_to_device(memory.range())?;
    let batches = mover.device.stats()?.batches - stats_before.batches;
    for (step, before) in steps.iter().zip(before) {
        let times = counts(step, "user")? - before;
        // A try that finds every page busy is set up and has nothing to copy.
        let is_of_a_batch = ["submit", "wait"].contains(step);
        ensure!(
            times == batches || (!is_of_a_batch && times > batches),
            "{step} was timed {times} times in {batches} batches"
        );
    }
    memory.check(1)?;
    let stats = mover.device.stats()?;
    ensure!(
        counts("fault", "cpu_fault")? - faults_before == stats.cpu_faults - stats_before.cpu_faults,
        "faults were counted {} times",
        stats.cpu_faults - stats_before.cpu_faults
    );
    let text = std::fs::read_to_string(folder.join("counters"))?;
    for (name, expected) in [
        ("bytes_to_device", stats.bytes_to_device),
        ("bytes_to_system", stats.bytes_to_system),
        ("bytes_by_fault", stats.bytes_by_fault),
        ("cpu_faults", stats.cpu_faults),
        ("batches", stats.batches),
        ("doorbells", stats.doorbells),
        ("resident_bytes", stats.resident_bytes),
        (
            "pages_skipped_already",
            stats.pages_skipped[SkipReason::Already as usize],
        ),
    ] {
        let line = text
            .lines()
            .find(|line| line.split(' ').next() == Some(name))
            .with_context(|| format!("there is no {name} in {text}"))?;
        ensure!(
            value(line, name) == Some(expected),
            "'{line}', and the ioctl says {expected}"
        );
    }
    for reason in SkipReason::ALL {
        ensure!(
            text.contains(&format!("pages_skipped_{} ", reason.name())),
            "{} is not in {text}",
            reason.name()
        );
    }
    Ok(())
}

/// The device loses its contents and refuses to go on as if nothing had happened: that is told once.
fn loss() -> Result<()> {
    let _driver = driver::Reloaded::with("timeout_ms=2000")?;
    let device = Faults::of_first_device()?;
    let mover = Mover::open()?;
    let memory = filled(1)?;
    let generation = mover.device.info()?.generation;
    let recording = Recording::start()?;
    device.renew()?;
    device.add(json!({ "action": "drop", "count": 1 }))?;
    let moved = mover.call(memory.range(), Direction::ToDevice, MigrateFlags::default());
    let losses = recording.named("loss")?;
    ensure!(
        losses.len() == 1
            && losses[0].is("cause", "not_adopted")
            && losses[0].number("generation")? == generation,
        "generation {generation:#x} was lost: {losses:?}, and the move gave {moved:?}"
    );
    drop(recording);
    device.clear()?;
    memory.check(1)
}
