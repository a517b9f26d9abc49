// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask bench programs`: how much `hmmctl run` slows programs of this machine down, beside plain runs in the
//! same guest, and how much of the memory that they do not use is on the device.

mod report;
mod task;

use std::ffi::OsStr;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use hmm_report::html::Part;
use hmm_vm::Progress;
use hmm_vm::guest::{Command, Guest, Root};

use super::publish::Publish;
use crate::guest_arguments::GuestArguments;
use crate::report::{DeviceTrace, fetch, reader_like, recorder};
use crate::{build, signals, surroundings};
use report::{Report, Round, Rounds};
use task::Task;

/// Arguments of `bench programs`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    guest: GuestArguments,
    #[command(flatten)]
    publish: Publish,
    /// Rounds; in each, every program runs once plainly and once under each policy.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Run only programs whose name contains this. May be given several times.
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
}

/// A policy of `hmmctl run`, and how many times as long as alone a program may take under it.
pub(super) const POLICIES: [(&str, f64); 2] = [("to-device", 1.3), ("churn", 2.0)];

/// Measures and reports.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let progress = Progress::new();
    let artifacts = build::artifacts(&arguments.guest.setup, &progress)?;
    let mut tasks = Task::all();
    tasks.retain(|task| {
        arguments.only.is_empty() || arguments.only.iter().any(|text| task.name.contains(text))
    });
    ensure!(
        !tasks.is_empty(),
        "no program has '{}' in its name",
        arguments.only.join("' or '")
    );
    let (tasks, missing): (Vec<_>, Vec<_>) = tasks.into_iter().partition(Task::is_possible);
    let missing = missing.iter().map(|task| task.name).collect();
    // The guest sees this folder at the same place.
    let inputs = tempfile::tempdir_in(build::target_folder()?.join("hmm"))
        .context("cannot make a folder for the programs' input")?;
    for task in &tasks {
        task.prepare(inputs.path())?;
    }

    let interrupts = signals::forward()?;
    let mut spec = arguments.guest.spec("programs", &interrupts)?;
    spec.share_host_root = true;
    let mut pages = arguments.publish.pages()?;
    let trace = match pages {
        Some(_) => Some(DeviceTrace::attach(&mut spec)?),
        None => None,
    };
    let mut recordings = Vec::new();
    let step = progress.step("boot the guest", None);
    let mut guest = Guest::boot(&artifacts, &spec)?;
    step.finish(&format!(
        "Linux {}, accelerator {}",
        guest.hello().kernel,
        guest.accelerator()
    ));
    let mut report = Report::new(
        &guest.hello().kernel,
        guest.accelerator().accelerator,
        missing,
    );
    let mut env = surroundings::environment(&build::target_folder()?);
    env.retain(|(name, _)| name != "LC_ALL");
    // The order of bytes is the same everywhere.
    env.push(("LC_ALL".into(), "C".into()));
    for task in &tasks {
        let step = progress.step(task.name, None);
        let mut rounds = Rounds::new(task.name);
        for _ in 0..arguments.runs {
            let mut seconds = |policy| -> anyhow::Result<Outcome> {
                let command = Command {
                    argv: task.argv(policy),
                    env: env.clone(),
                    cwd: inputs.path().into(),
                    root: Root::Host,
                    terminal: None,
                    limit: arguments.guest.timeout,
                };
                outcome(&mut guest, &command)
            };
            let plain = seconds(None)?;
            let mut policies = Vec::new();
            for (policy, _) in POLICIES {
                let moved = seconds(Some(policy))?;
                ensure!(
                    !task.is_repeatable || moved.stdout == plain.stdout,
                    "{}: another output under the policy {policy}",
                    task.name
                );
                policies.push((moved.seconds / plain.seconds, moved.resting_away));
            }
            rounds.add(Round {
                plain: plain.seconds,
                policies,
            });
        }
        step.finish(&rounds.to_string());
        report.add(&rounds);
        if pages.is_some() {
            // Once more: recording takes time, too.
            for (policy, _) in POLICIES {
                let mut command = Command {
                    argv: task.argv(Some(policy)),
                    env: env.clone(),
                    cwd: inputs.path().into(),
                    root: Root::Host,
                    terminal: None,
                    limit: arguments.guest.timeout,
                };
                command
                    .argv
                    .splice(0..0, recorder().into_iter().map(Into::into));
                outcome(&mut guest, &command)?;
                let recording = fetch(&mut guest, &reader_like(&command));
                recordings.push((format!("{}, {policy}", task.name), recording));
            }
        }
    }
    guest.power_off()?;
    if let (Some(pages), Some(trace)) = (&mut pages, trace) {
        let trace = trace.read()?;
        for (name, recording) in recordings {
            pages.add(recording.map(|recording| Part {
                name,
                recording,
                trace: trace.clone(),
            }));
        }
    }
    let report = report.finish();
    let pages = pages.as_ref().map(|pages| ("bench programs", pages));
    (arguments.publish).report(&report, report.is_missed(), pages)
}

/// What one run gave.
struct Outcome {
    seconds: f64,
    stdout: Vec<u8>,
    /// The part of the memory at rest that was away when the program ended, if it told.
    resting_away: Option<f64>,
}

fn outcome(guest: &mut Guest, command: &Command) -> anyhow::Result<Outcome> {
    let began = Instant::now();
    let output = guest.output(command)?;
    let seconds = began.elapsed().as_secs_f64();
    let errors = String::from_utf8_lossy(&output.stderr);
    if output.end.shell_code() != 0 {
        guest.keep_folder();
        let words: Vec<_> = command
            .argv
            .iter()
            .map(|word| OsStr::to_string_lossy(word))
            .collect();
        bail!(
            "'{}' ended with {:?}: {errors}\nlogs: {}",
            words.join(" "),
            output.end,
            guest.folder().display()
        );
    }
    Ok(Outcome {
        seconds,
        stdout: output.stdout,
        resting_away: task::resting_away(&errors),
    })
}
