// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask demo`: an unmodified program gives the right answer while its memory is on the move.
//!
//! Debian's `sort` sorts real text, once plainly and once while `hmmctl` moves its memory to the device again and
//! again; the CPU's faults bring back what it uses. What must come out is computed here as well.

mod device;
mod report;
mod task;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use hmm_vm::Progress;
use hmm_vm::guest::{Collected, Command, Guest, Input, Root, Streams};

use crate::guest_arguments::GuestArguments;
use crate::report::Collection;
use crate::{build, signals, surroundings};
use report::{Moved, Report, Run, Seconds};
use task::{Answer, Task};

/// Where the guest's side of the summary is.
const SUMMARY: &str = "/tmp/summary.json";

/// Arguments of `demo`.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    other: Option<Other>,
    #[command(flatten)]
    guest: GuestArguments,
    /// Write the figures to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Record the run with the memory on the move, and write a picture of it: one HTML file.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// Other demonstrations.
#[derive(clap::Subcommand)]
enum Other {
    /// Show a C program that has the device run functions of its own, on the same pointers.
    Device(device::Arguments),
}

/// Runs the demonstration; the code says whether it showed what it is to show.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if let Some(Other::Device(arguments)) = &arguments.other {
        return device::run(arguments);
    }
    let progress = Progress::new();
    let setup = &arguments.guest.setup;
    let artifacts = build::artifacts(setup, &progress)?;
    let task = Task::prepare(&hmm_vm::build_root(&setup.options(), &progress)?, &progress)?;

    // From here on, a Ctrl-C is the guest's.
    let interrupts = signals::forward()?;
    let mut spec = arguments.guest.spec("demo", &interrupts)?;
    spec.image = task.image().clone();
    let collection = match &arguments.report {
        Some(output) => Some(Collection::begin(output, &mut spec)?),
        None => None,
    };
    let step = progress.step("boot the guest", None);
    let mut guest = Guest::boot(&artifacts, &spec)?;
    step.finish(&format!(
        "Linux {}, accelerator {}",
        guest.hello().kernel,
        guest.accelerator()
    ));

    let mut env = surroundings::hermetic_environment();
    // The order of bytes is the same everywhere.
    env.push(("LC_ALL".into(), "C".into()));
    let command = |argv: Vec<String>| Command {
        argv: argv.into_iter().map(Into::into).collect(),
        env: env.clone(),
        cwd: "/".into(),
        root: Root::Image,
        terminal: None,
        limit: arguments.guest.timeout,
    };
    let step = progress.step(&format!("{}, plainly", task.name()), None);
    let plain = answer(&mut guest, &command(task.argv()))?;
    step.finish(&plain.to_string());

    let step = progress.step(
        &format!("{}, with its memory on the move", task.name()),
        None,
    );
    let mut argv = [
        "hmmctl",
        "run",
        "--policy",
        // The demonstration is to show faults, and not how they are avoided.
        "stress",
        "--quiet",
        "--summary-json",
        SUMMARY,
        "--",
    ]
    .map(str::to_owned)
    .to_vec();
    argv.extend(task.argv());
    let mut moved_command = command(argv);
    if collection.is_some() {
        Collection::wrap(&mut moved_command);
    }
    let churn = answer(&mut guest, &moved_command)?;
    step.finish(&churn.to_string());

    let moved = summary(
        &mut guest,
        &command(vec!["cat".to_owned(), SUMMARY.to_owned()]),
    )?;
    let report = Report {
        accel: guest.accelerator().accelerator.to_string(),
        kernel: guest.hello().kernel.clone(),
        qemu: artifacts.environment.qemu_version.clone(),
        program: task.argv().join(" "),
        output_matches: plain.answer == churn.answer && plain.answer == *task.expected(),
        seconds: Seconds {
            plain: plain.seconds,
            churn: churn.seconds,
        },
        moved,
    };
    print!("\n{report}");
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&report)?;
        fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    let failures = report.failures();
    for failure in &failures {
        eprintln!("error: {failure}");
    }
    if failures.is_empty() {
        match collection {
            Some(collection) => print!("\n{}", collection.finish(guest, &moved_command)?),
            None => drop(guest.power_off()?),
        }
        return Ok(ExitCode::SUCCESS);
    }
    guest.keep_folder();
    eprintln!("logs: {}", guest.folder().display());
    Ok(ExitCode::FAILURE)
}

/// Runs the program to its end and takes its output as a digest.
fn answer(guest: &mut Guest, command: &Command) -> anyhow::Result<Run> {
    let started = std::time::Instant::now();
    let output = task::DigestSink::default();
    let errors = Collected::default();
    let end = guest.exec(
        command,
        Streams {
            stdin: Input::Empty,
            stdout: Box::new(output.clone()),
            stderr: Box::new(errors.clone()),
        },
    )?;
    let seconds = started.elapsed().as_secs_f64();
    if end.shell_code() != 0 {
        guest.keep_folder();
        bail!(
            "{} ended with {end:?}: {}\nlogs: {}",
            command.argv[0].to_string_lossy(),
            errors.text(),
            guest.folder().display()
        );
    }
    Ok(Run {
        answer: Answer::of(&output),
        seconds,
    })
}

/// Fetches what hmmctl counted.
fn summary(guest: &mut Guest, command: &Command) -> anyhow::Result<Moved> {
    let output = guest.output(command)?;
    serde_json::from_slice(&output.stdout).with_context(|| {
        format!(
            "the summary of hmmctl is not what was expected: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    })
}
