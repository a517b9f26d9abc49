// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask models`: the protocol between the device's workers and the threads that change what they work on, in all its
//! interleavings.

use std::ffi::OsString;
use std::process::{Command, ExitCode};

use anyhow::Context;

use crate::build;

/// Runs the models. They are built apart: their locks and atomics are the checker's.
pub(crate) fn run() -> anyhow::Result<ExitCode> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let status = Command::new(program)
        .args(["test", "--release", "--package", "hmm-gate"])
        .args(["--test", "models", "--target-dir"])
        .arg(build::target_folder()?.join("loom"))
        .current_dir(build::repository()?)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env("RUSTFLAGS", "--cfg loom")
        .status()
        .context("cannot start cargo")?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(crate::FAILURE)
    })
}
