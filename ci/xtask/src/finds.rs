// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask finds [NAME]`: shows each fault of the kernel that the project has found, and that its patch mends it.
//!
//! A find is an entry of `ci/finds/finds.toml`, which [`list`] reads, and a program in C beside it, which needs nothing of this project's:
//! the devices are those of the kernel's own `test_hmm`. [`guest`] runs the programs on a kernel without the patches and on one with
//! them, [`verdict`] compares, [`report`] tells, [`page`] writes `docs/finds.md`.

mod guest;
mod list;
mod page;
mod report;
mod verdict;

use std::path::PathBuf;
use std::process::ExitCode;

use hmm_vm::accel::AcceleratorChoice;
use hmm_vm::{KernelChoice, Progress};

use crate::delay::Delay;
use crate::setup_arguments::SetupArguments;
use crate::{build, signals};
use guest::Ground;
use list::Finds;
use verdict::Verdict;

/// Arguments of `finds`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    setup: SetupArguments,
    /// The finds; all of them unless some are named. --kernel chooses the kernel without the patches, which is debug unless it is given.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Only on the kernel without the patches. The other one is not built then.
    #[arg(long)]
    unpatched_only: bool,
    /// Delay functions of the guest's kernel while the programs run, as 'hmmctl delay' takes it. May be given several times.
    #[arg(long = "delay", value_name = "FUNCTION[=HOW]", value_parser = Delay::read)]
    delays: Vec<Delay>,
    /// Names the finds and what each is, and runs none.
    #[arg(long)]
    list: bool,
    /// Prints docs/finds.md, and runs none.
    #[arg(long, conflicts_with = "list")]
    page: bool,
    /// Writes all results to this file, as JUnit's XML.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Writes all results to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// How the guest's processors run: `auto` takes kvm where ordinary guests really run, and tcg elsewhere.
    #[arg(
        long,
        value_name = "auto|kvm|tcg",
        default_value = "auto",
        env = "HMM_ACCEL"
    )]
    accel: AcceleratorChoice,
}

/// Runs the reproducers on both kernels, and judges them.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let folder = build::repository()?.join(list::FOLDER);
    let all = Finds::read(&folder)?;
    if arguments.page {
        print!("{}", page::Page(&all));
        return Ok(ExitCode::SUCCESS);
    }
    let finds = match all.named(&arguments.names) {
        Ok(finds) => finds,
        Err(error) => {
            eprintln!("error: {error}");
            return Ok(ExitCode::from(crate::USAGE));
        }
    };
    if arguments.list {
        for find in finds {
            println!("{:24} {}  {}", find.name, find.patch, find.title);
        }
        return Ok(ExitCode::SUCCESS);
    }
    // Of the kernels that other commands take, debug is the last.
    let unpatched = (arguments.setup.kernels().pop()).unwrap_or(KernelChoice::Debug);
    if unpatched == KernelChoice::Fixed {
        eprintln!("error: --kernel is the kernel without the patches here");
        return Ok(ExitCode::from(crate::USAGE));
    }
    let kernels = match arguments.unpatched_only {
        true => vec![unpatched],
        false => vec![unpatched, KernelChoice::Fixed],
    };
    let progress = Progress::new();
    // A Ctrl-C ends the set-up at once. From the first boot on, the guests are told of it.
    let mut grounds = Vec::new();
    for kernel in kernels {
        let options = arguments.setup.options_for(kernel);
        grounds.push(Ground::prepare(
            &folder,
            &all,
            &options,
            arguments.accel,
            arguments.delays.clone(),
            &progress,
        )?);
    }
    let interrupts = signals::forward()?;
    let mut runs = Vec::new();
    for ground in &grounds {
        runs.push(ground.run(&finds, &interrupts, &progress)?);
    }
    let verdict = Verdict::new(&finds, runs);
    println!("{}", report::Table(&verdict));
    if let Some(path) = &arguments.junit {
        report::junit(path, &verdict)?;
    }
    if let Some(path) = &arguments.json {
        report::json(path, &verdict)?;
    }
    Ok(ExitCode::from(if verdict.is_good() {
        0
    } else {
        crate::FAILURE
    }))
}
