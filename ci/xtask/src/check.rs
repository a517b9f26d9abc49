// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask check`: the form and the lints of all the code.

use std::ffi::OsString;
use std::process::{Command, ExitCode};

use anyhow::Context;
use hmm_vm::Progress;

use crate::build::repository;
use crate::imports;
use crate::setup_arguments::SetupArguments;

/// Arguments of `check`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    setup: SetupArguments,
}

/// Cargo's own checks, each with the component that has it.
const CARGO_CHECKS: &[(&str, &[&str])] = &[
    ("rustfmt", &["fmt", "--all", "--check"]),
    (
        "clippy",
        &[
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "--deny",
            "warnings",
        ],
    ),
];

/// Runs every check, also after one has failed.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let progress = Progress::new();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut failed = Vec::new();
    for (component, check) in CARGO_CHECKS {
        let name = format!("cargo {}", check.join(" "));
        progress.line(&name);
        let status = Command::new(&cargo)
            .args(*check)
            .status()
            .with_context(|| format!("cannot start {name}"))?;
        if !status.success() {
            progress.line(&format!(
                "{name}: {status} (`rustup component add {component}` if cargo does not know it)"
            ));
            failed.push(name);
        }
    }
    for checked in imports::CHECKED_CRATES {
        let name = format!("import cycles of {}", checked.root);
        progress.line(&name);
        let cycles = checked
            .cycles(&repository()?)
            .context("cannot look for import cycles")?;
        for cycle in &cycles {
            progress.line(&cycle.to_string());
        }
        if !cycles.is_empty() {
            failed.push(name);
        }
    }
    for kernel in arguments.setup.kernels() {
        let name = format!("the driver's own checks, {kernel}");
        match hmm_vm::lint_driver(&arguments.setup.options_for(kernel), &progress) {
            Ok(()) => {}
            Err(error @ hmm_vm::SetupError::Driver { .. }) => {
                progress.line(&error.to_string());
                failed.push(name);
            }
            Err(error) => return Err(error.into()),
        }
    }
    if failed.is_empty() {
        progress.line("check: nothing to complain about");
        return Ok(ExitCode::SUCCESS);
    }
    progress.line(&format!("check failed: {}", failed.join("; ")));
    Ok(ExitCode::FAILURE)
}
