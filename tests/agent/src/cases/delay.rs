// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `delay/*`: kernel functions that are delayed while memory moves, and that are not any more afterwards.

use super::child;
use super::support::gate::Gate;
use super::support::prelude::*;
use super::workload;
use hmm_control::plan;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output, Stdio};

pub(super) const CASES: &[Case] = &[
    Case::new("delay/migrate-while-memory-moves", || moves("migrate=20%")).within(300),
    Case::new("delay/rmap-while-memory-moves", || moves("rmap=20%")).within(300),
    Case::new("delay/fault-while-memory-moves", || moves("fault=20%")).within(300),
    Case::new("delay/exit-while-memory-moves", || moves("exit=100%")).within(300),
    Case::new("delay/split-while-memory-moves", || moves("split=100%")).within(300),
    Case::new("delay/reclaim-while-memory-moves", || {
        moves("reclaim=20%,everyone")
    })
    .within(300),
    Case::new("delay/gone-after-kill", gone_after_kill),
    Case::new("delay/other-processes-are-spared", others_are_spared),
    Case::new("delay/refused", refused),
];

fn hmmctl(arguments: &[&str]) -> Result<Command> {
    if !Path::new("/dev/hmm_delays").exists() {
        return Err(skip("this kernel has no kprobes"));
    }
    let mut command = Command::new(Path::new(plan::PROGRAMS).join("hmmctl"));
    command.args(arguments).stdin(Stdio::null());
    Ok(command)
}

fn output(mut command: Command) -> Result<Output> {
    command
        .output()
        .with_context(|| format!("cannot run {command:?}"))
}

/// What `hmmctl delay` says at the end: how many calls of delayed functions there were, and how many were delayed.
fn summary(output: &Output) -> Result<(u64, u64)> {
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {text}", output.status);
    let line = (text.lines())
        .find_map(|line| {
            line.strip_prefix("delays: ")
                .filter(|line| line.contains("calls"))
        })
        .with_context(|| format!("there is no summary in: {text}"))?;
    let numbers: Vec<u64> = (line.split(' '))
        .filter_map(|word| word.parse().ok())
        .collect();
    match numbers[..] {
        [calls, delayed, ..] => Ok((calls, delayed)),
        _ => bail!("there are no numbers in: {line}"),
    }
}

/// The delays that are in force.
fn list() -> Result<Vec<Value>> {
    let output = output(hmmctl(&["delay", "--list", "--json"])?)?;
    ensure!(output.status.success(), "{}", output.status);
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// A program that checks its memory while that moves, with a delay. Its bytes are right, and something was delayed.
fn moves(delay: &str) -> Result<()> {
    let program = std::env::current_exe()?;
    let program = program.to_str().context("the program has a strange name")?;
    let hmmctl_path = Path::new(plan::PROGRAMS).join("hmmctl");
    let inner = hmmctl_path.to_str().context("hmmctl has a strange name")?;
    let mut command = hmmctl(&[
        "delay",
        "--seed",
        "1",
        delay,
        "--",
        inner,
        "run",
        "--quiet",
        "--policy",
        "churn",
        "--interval",
        "5",
        "--",
        program,
        child::ARGUMENT,
        "workload/memory",
    ])?;
    command.env(workload::MOVED, "1");
    let (calls, delayed) = summary(&output(command)?)?;
    eprintln!("{delay}: {calls} calls, {delayed} delayed");
    ensure!(delayed > 0, "none of {calls} calls was delayed");
    ensure!(list()?.is_empty(), "delays are left: {:?}", list()?);
    Ok(())
}

/// Adds delays for as long as the child lives.
fn in_force(arguments: &[&str]) -> Result<std::process::Child> {
    let child = hmmctl(&["delay", "--quiet"])?.args(arguments).spawn()?;
    while list()?.is_empty() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    Ok(child)
}

/// A command that is killed leaves no delay behind.
fn gone_after_kill() -> Result<()> {
    for delay in ["migrate=everyone", "ksm=everyone"] {
        let mut child = in_force(&[delay])?;
        child.kill()?;
        child.wait()?;
        ensure!(list()?.is_empty(), "delays are left: {:?}", list()?);
    }
    Ok(())
}

/// Delays are for a process and its descendants. This one is none.
fn others_are_spared() -> Result<()> {
    let ended = Gate::new()?;
    let other = fork(|| ended.wait())?;
    let mut child = in_force(&["--pid", &other.id()?.to_string(), "migrate=100%"])?;
    let mover = Mover::open()?;
    let mut memory = Memory::single(100)?;
    memory.fill(1);
    mover.all_to_device(memory.range())?;
    memory.check(1)?;
    let delayed: u64 = (list()?.iter())
        .filter_map(|entry| entry["delays"].as_u64())
        .sum();
    child.kill()?;
    child.wait()?;
    ended.open()?;
    other.wait()?;
    ensure!(
        delayed == 0,
        "{delayed} calls of another process were delayed"
    );
    Ok(())
}

/// What cannot be delayed is refused with a reason, and nothing is delayed then.
fn refused() -> Result<()> {
    for (delay, reason) in [
        ("no_such_function", "no such function"),
        ("kprobe_int3_handler", "forbids probes"),
        ("migrate=3ms", "a delay is between"),
    ] {
        let output = output(hmmctl(&["delay", delay])?)?;
        let text = String::from_utf8_lossy(&output.stderr);
        ensure!(
            !output.status.success() && text.contains(reason),
            "{delay}: {}: {text}",
            output.status
        );
        ensure!(list()?.is_empty(), "delays are left: {:?}", list()?);
    }
    Ok(())
}
