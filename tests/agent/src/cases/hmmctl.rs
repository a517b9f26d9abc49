// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `hmmctl/*`: the command that users have.

use super::child;
use super::support::gate::Gate;
use super::support::jobs::{Jobs, crc32c};
use super::support::prelude::*;
use super::workload;
use hmm_control::plan;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

pub(super) const CASES: &[Case] = &[
    Case::new("hmmctl/info-json", info),
    Case::new("hmmctl/migrate-and-residency-json", migrate_and_residency),
    Case::new("hmmctl/run-churn-memory", run_churn).within(300),
    Case::new("hmmctl/run-stress-memory", run_stress).within(300),
    Case::new("hmmctl/run-stress-sparse", run_sparse).within(300),
    Case::new("hmmctl/run-to-device-memory", run_to_device).within(300),
    Case::new("hmmctl/run-churn-processes", run_processes).within(300),
    Case::new("hmmctl/run-streams", run_streams),
    Case::new("hmmctl/run-exit-codes", run_exit_codes),
    Case::new("hmmctl/policy-verbs-json", policy_verbs),
    Case::new("hmmctl/job-json", job),
    Case::new("hmmctl/top-json", top),
    Case::new("hmmctl/errors", errors),
];

fn hmmctl(arguments: &[&str]) -> Command {
    let mut command = Command::new(Path::new(plan::PROGRAMS).join("hmmctl"));
    command.args(arguments).stdin(Stdio::null());
    command
}

fn output(mut command: Command) -> Result<Output> {
    command
        .output()
        .with_context(|| format!("cannot run {command:?}"))
}

fn succeeded(output: &Output) -> Result<()> {
    ensure!(
        output.status.success(),
        "{}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

fn json(arguments: &[&str]) -> Result<Value> {
    let output = output(hmmctl(arguments))?;
    succeeded(&output)?;
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn number(value: &Value, name: &str) -> Result<u64> {
    value[name]
        .as_u64()
        .with_context(|| format!("there is no number '{name}' in {value}"))
}

/// Arguments that make this program a workload.
fn program(name: &str) -> Result<[String; 3]> {
    let program = std::env::current_exe()?;
    let program = program.to_str().context("the program has a strange name")?;
    Ok([program, child::ARGUMENT, name].map(str::to_owned))
}

fn info() -> Result<()> {
    let info = Mover::open()?.device.info()?;
    let reply = json(&["info", "--json"])?;
    ensure!(
        number(&reply, "memory_bytes")? == info.memory_bytes,
        "{reply}, and the device has {info:?}"
    );
    ensure!(
        number(&reply, "generation")? == info.generation,
        "{reply}, and the device has {info:?}"
    );
    Ok(())
}

/// What is said of a process by one command holds for the next, and as long as the process lives.
fn policy_verbs() -> Result<()> {
    const PAGES: usize = 400;
    let mut memory = Memory::single(PAGES)?;
    let range = memory.range();
    let (ready, check) = (Gate::new()?, Gate::new()?);
    let child = fork(|| {
        memory.fill(1);
        ready.open()?;
        check.wait()?;
        memory.check(1)
    })?;
    ready.wait()?;
    let pid = child.id()?.to_string();
    let all = format!("{:x}-{:x}", range.start, range.end);
    let first = format!("{:x}-{:x}", range.start, range.start + (100 * PAGE) as u64);
    let of_child = |arguments: &[&str]| {
        let mut words = arguments.to_vec();
        words.extend(["--pid", &pid]);
        json(&words)
    };
    let device_pages = || {
        number(
            &of_child(&["residency", "--range", &all, "--json"])?,
            "device_pages",
        )
    };
    let advise = output(hmmctl(&[
        "advise", "--pid", &pid, "--range", &first, "--side", "device", "--window", "4K-64K",
    ]))?;
    succeeded(&advise)?;

    // Parts without a preference stay where they are, and what was busy may stay, too.
    let report = of_child(&["prefetch", "--range", &all, "--json"])?;
    ensure!(
        report["state"] == "done"
            && number(&report, "pages_moved")? + number(&report, "pages_skipped")? == 100,
        "100 pages were to move: {report}"
    );
    let moved = number(&report, "pages_moved")?;
    ensure!(moved > 0 && device_pages()? == moved, "{report}");
    let evicted = of_child(&["evict", "--range", &all, "--json"])?;
    let left = device_pages()?;
    ensure!(
        number(&evicted, "bytes_evicted")? == (moved - left) * PAGE as u64,
        "{left} of {moved} pages are left: {evicted}"
    );

    let limit = of_child(&["limit", "--set", "200K", "--json"])?;
    ensure!(number(&limit, "limit_bytes")? == 200 << 10, "{limit}");
    let report = of_child(&["prefetch", "--range", &all, "--to", "device", "--json"])?;
    ensure!(
        number(&report["skipped"], "over_limit")? > 0 && device_pages()? <= 50,
        "50 pages are allowed: {report}"
    );
    let limit = of_child(&["limit", "--json"])?;
    ensure!(
        number(&limit, "resident_bytes")? == device_pages()? * PAGE as u64,
        "{limit}, and {} pages are on the device",
        device_pages()?
    );
    let none = of_child(&["limit", "--set", "none", "--json"])?;
    ensure!(none["limit_bytes"].is_null(), "{none}");
    json(&["evict", "--bytes", "1T", "--json"])?;
    ensure!(device_pages()? == 0, "{} pages stayed", device_pages()?);

    let refused = output(hmmctl(&[
        "advise",
        "--pid",
        &pid,
        "--range",
        "1000-2000",
        "--keep",
        "yes",
    ]))?;
    let message = String::from_utf8_lossy(&refused.stderr);
    ensure!(
        refused.status.code() == Some(1) && message.contains("has no mapping"),
        "{}: {message}",
        refused.status
    );
    check.open()?;
    child.wait()
}

/// `top` finds the process that has device memory, and counts what the driver counts.
fn top() -> Result<()> {
    let mut memory = Memory::single(100)?;
    let range = memory.range();
    let (ready, check) = (Gate::new()?, Gate::new()?);
    let child = fork(|| {
        memory.fill(1);
        ready.open()?;
        check.wait()?;
        memory.check(1)
    })?;
    ready.wait()?;
    let pid = child.id()?;
    let range = format!("{:x}-{:x}", range.start, range.end);
    let moved = json(&[
        "migrate",
        "--pid",
        &pid.to_string(),
        "--to",
        "device",
        "--range",
        &range,
        "--json",
    ])?;
    let moved = number(&moved, "pages_moved")?;
    ensure!(moved > 0, "no page moved");
    let found = json(&["top", "--once", "--interval", "10", "--json"])?;
    let stats = Mover::open()?.device.stats()?;
    ensure!(
        found["device"] == "present"
            && number(&found["counters"], "bytes_to_device")? == stats.bytes_to_device
            && number(&found["counters"], "resident_bytes")? == stats.resident_bytes,
        "{found}, and the device has {stats:?}"
    );
    let processes = found["processes"]
        .as_array()
        .context("there are no processes")?;
    let own = (processes.iter())
        .find(|process| process["pid"] == pid)
        .with_context(|| format!("process {pid} is not in {found}"))?;
    ensure!(
        number(own, "resident_bytes")? == moved * PAGE as u64 && own["limit_bytes"].is_null(),
        "{moved} pages are on the device: {own}"
    );
    check.open()?;
    child.wait()
}

/// Jobs on the memory of another process, and one that fails.
fn job() -> Result<()> {
    drop(Jobs::open()?);
    let mut memory = Memory::single(20)?;
    let (ready, check) = (Gate::new()?, Gate::new()?);
    let child = fork(|| {
        memory.fill(1);
        memory.unmap(18..19)?;
        ready.open()?;
        check.wait()?;
        memory.check_pages(0..10, 1)?;
        let word = 0x5b_u64.to_le_bytes();
        ensure!(
            (memory.page_bytes(10..12).chunks_exact(8)).all(|found| found == word),
            "two pages were to be filled with 0x5a, and 1 added to each word"
        );
        memory.check_pages(12..18, 1)
    })?;
    ready.wait()?;
    // The parent has the same bytes at the same addresses.
    memory.fill(1);
    let expected = crc32c(memory.page_bytes(0..10));
    let pid = child.id()?.to_string();
    let range = |pages: std::ops::Range<usize>| {
        let range = memory.part(pages);
        format!("{:x}-{:x}", range.start, range.end)
    };
    let (whole, filled) = (range(0..10), range(10..12));
    let job = |more: &[&str]| json(&[&["job", "--pid", &pid, "--json"], more].concat());
    let crc = job(&["crc32c", &whole])?;
    ensure!(
        crc["state"] == "done" && number(&crc, "result")? == u64::from(expected),
        "{crc}"
    );
    let fill = job(&["fill", &filled, "--value=0x5a"])?;
    ensure!(number(&fill, "amount")? == 2 * PAGE as u64, "{fill}");
    let add = job(&["atomic-add", &filled, "--value=1"])?;
    ensure!(number(&add, "result")? == 0x5a, "{add}");
    // Each command has an open file of its own, and nothing is mapped when it begins.
    let probe = job(&["probe", &whole])?;
    ensure!(number(&probe, "result")? == 0, "{probe}");
    let failed = output(hmmctl(&["job", "--pid", &pid, "crc32c", &range(17..20)]))?;
    let message = String::from_utf8_lossy(&failed.stderr);
    let hole = format!("unmapped at {:#x}", memory.part(18..19).start);
    ensure!(
        failed.status.code() == Some(1) && message.contains(&hole),
        "{}: {message}",
        failed.status
    );
    check.open()?;
    child.wait()
}

fn migrate_and_residency() -> Result<()> {
    let mut memory = Memory::single(120)?;
    let range = memory.part(0..100);
    let (ready, check) = (Gate::new()?, Gate::new()?);
    let child = fork(|| {
        memory.fill_pages(0..80, 1);
        ready.open()?;
        check.wait()?;
        memory.check_pages(0..80, 1)
    })?;
    ready.wait()?;
    let pid = child.id()?.to_string();
    let range = format!("{:x}-{:x}", range.start, range.end);
    let migrate = |to: &str| {
        json(&[
            "migrate", "--pid", &pid, "--to", to, "--range", &range, "--json",
        ])
    };
    let moved = migrate("device")?;
    ensure!(
        number(&moved, "pages_moved")? == 80 && number(&moved["skipped"], "hole")? == 20,
        "80 pages of 100 were to move: {moved}"
    );
    let residency = json(&[
        "residency",
        "--pid",
        &pid,
        "--range",
        &range,
        "--runs",
        "--json",
    ])?;
    ensure!(
        number(&residency, "device_pages")? == 80 && number(&residency, "other_pages")? == 20,
        "80 pages of 100 are on the device: {residency}"
    );
    let runs = residency["mappings"][0]["runs"]
        .as_array()
        .context("there are no runs")?;
    let sides: Vec<_> = runs
        .iter()
        .map(|run| {
            (
                run["side"].as_str().unwrap_or(""),
                run["pages"].as_u64().unwrap_or(0),
            )
        })
        .collect();
    ensure!(
        sides == [("device", 80), ("other", 20)],
        "the runs are {sides:?}"
    );
    let moved = migrate("system")?;
    ensure!(
        number(&moved, "pages_moved")? == 80,
        "80 pages were to come home: {moved}"
    );
    check.open()?;
    child.wait()
}

/// Runs a workload plainly and with its memory being moved: the output is the same. The summary of the run.
fn run(name: &str, options: &[&str]) -> Result<Value> {
    let program = program(name)?;
    let mut plain = Command::new(&program[0]);
    plain.args(&program[1..]).stdin(Stdio::null());
    let plain = output(plain)?;
    succeeded(&plain)?;
    ensure!(!plain.stdout.is_empty(), "the workload prints nothing");

    let summary = PathBuf::from(format!("/tmp/summary-{}.json", std::process::id()));
    let mut moved = hmmctl(&["run", "--summary-json"]);
    moved.arg(&summary).args(options).arg("--").args(&program);
    moved.env(workload::MOVED, "1");
    let moved = output(moved)?;
    succeeded(&moved)?;
    ensure!(
        moved.stdout == plain.stdout,
        "with its memory being moved, the workload printed {:?} instead of {:?}",
        String::from_utf8_lossy(&moved.stdout),
        String::from_utf8_lossy(&plain.stdout)
    );
    let text = std::fs::read(&summary).context("there is no summary")?;
    std::fs::remove_file(&summary)?;
    let summary: Value = serde_json::from_slice(&text)?;
    ensure!(summary["error"].is_null(), "moving ended early: {summary}");
    for counter in [
        "bytes_to_device",
        "bytes_to_system",
        "cpu_faults",
        "batches",
        "doorbells",
        "passes",
    ] {
        ensure!(number(&summary, counter)? > 0, "{counter} is 0: {summary}");
    }
    ensure!(
        number(&summary, "copy_errors")? == 0,
        "copies failed: {summary}"
    );
    Ok(summary)
}

fn run_churn() -> Result<()> {
    run("workload/memory", &["--policy", "churn", "--interval", "5"]).map(drop)
}

fn run_stress() -> Result<()> {
    let options = ["--policy", "stress", "--interval", "5"];
    let summary = run("workload/memory", &options)?;
    let peak = number(&summary, "peak_resident_bytes")?;
    ensure!(
        peak >= (PAGE * 100) as u64,
        "at most {peak} bytes were on the device"
    );
    Ok(())
}

/// Passes over 16 TiB of addresses with few pages cost what the pages cost.
fn run_sparse() -> Result<()> {
    let options = ["--policy", "stress", "--interval", "1"];
    let summary = run("workload/sparse", &options)?;
    // The program ends once its memory has been away, which one pass may bring about.
    ensure!(number(&summary, "passes")? > 0, "no pass ended: {summary}");
    Ok(())
}

fn run_to_device() -> Result<()> {
    run("workload/memory", &["--interval", "5"]).map(drop)
}

fn run_processes() -> Result<()> {
    let summary = run(
        "workload/processes",
        &["--policy", "churn", "--interval", "5"],
    )?;
    let processes = number(&summary, "processes")?;
    ensure!(
        processes == 4,
        "one process and its three children are {processes}"
    );
    Ok(())
}

/// Standard input and output are the program's own, byte for byte.
fn run_streams() -> Result<()> {
    use std::io::Write;
    let mut command = hmmctl(&["run", "--quiet", "--", "/proc/self/exe", "info", "--json"]);
    // The program that is run here is hmmctl itself.
    let direct = json(&["info", "--json"])?;
    let moved = output({
        command.stdin(Stdio::null());
        command
    })?;
    succeeded(&moved)?;
    let moved_reply: Value = serde_json::from_slice(&moved.stdout)?;
    ensure!(
        moved_reply["uuid"] == direct["uuid"],
        "the program's output is not its own: {moved_reply}"
    );
    ensure!(
        moved.stderr.is_empty(),
        "a quiet run printed {:?}",
        String::from_utf8_lossy(&moved.stderr)
    );
    // Nothing is read from the program's input: all of it is still there afterwards.
    let (reader, writer) = rustix::pipe::pipe()?;
    std::fs::File::from(writer).write_all(b"input")?;
    let mut command = hmmctl(&["run", "--quiet", "--", "/proc/self/exe", "info"]);
    command.stdin(Stdio::from(reader.try_clone()?));
    succeeded(&output(command)?)?;
    let mut rest = [0; 16];
    let length = rustix::io::read(&reader, &mut rest)?;
    ensure!(
        rest[..length] == *b"input",
        "of the input, {:?} is left",
        &rest[..length]
    );
    Ok(())
}

fn run_exit_codes() -> Result<()> {
    let code = |name: &str| -> Result<Option<i32>> {
        let mut command = hmmctl(&["run", "--quiet", "--"]);
        command.args(program(name)?);
        Ok(output(command)?.status.code())
    };
    for (name, expected) in [
        ("selftest/passes", 0),
        ("selftest/fails", 1),
        ("selftest/skips", 4),
        ("selftest/crashes", 134),
    ] {
        let found = code(name)?;
        ensure!(
            found == Some(expected),
            "{name}: expected {expected}, found {found:?}"
        );
    }
    for (arguments, expected) in [
        (&["run", "--", "/no/such/program"][..], 127),
        (&["run", "--", plan::PATH], 126),
        (
            &["--device", "/dev/hmm77", "run", "--", "/proc/self/exe"],
            125,
        ),
        (
            &[
                "run",
                "--summary-json",
                "/no/such/folder/file",
                "--",
                "/proc/self/exe",
            ],
            125,
        ),
        (&["run"], 2),
    ] {
        let output = output(hmmctl(arguments))?;
        ensure!(
            output.status.code() == Some(expected),
            "{arguments:?}: expected {expected}, found {}",
            output.status
        );
        ensure!(
            !output.stderr.is_empty(),
            "{arguments:?} failed without a word"
        );
    }
    Ok(())
}

fn errors() -> Result<()> {
    for (arguments, said) in [
        (
            &["--device", "/dev/hmm77", "info"][..],
            "load the virtio_hmm module",
        ),
        (
            &["--device", "/dev/null", "info"],
            "not a virtio_hmm device",
        ),
        (
            &["migrate", "--pid", "2147483647", "--to", "device"],
            "2147483647",
        ),
        (
            &[
                "migrate",
                "--pid",
                "2147483647",
                "--to",
                "device",
                "--range",
                "1000-2000",
            ],
            "does not exist",
        ),
        (&["residency", "--pid", "2"], "has no memory"),
    ] {
        let output = output(hmmctl(arguments))?;
        let text = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.code() == Some(1) && text.contains(said),
            "{arguments:?}: expected '{said}', found {} and {text}",
            output.status
        );
    }
    Ok(())
}
