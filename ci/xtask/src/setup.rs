// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask setup`.

use std::process::ExitCode;

use hmm_vm::Progress;

use crate::build;
use crate::setup_arguments::SetupArguments;

/// Arguments of `setup`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    setup: SetupArguments,
}

/// Makes everything that a guest is made of and says where its parts are.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let artifacts = build::artifacts(&arguments.setup, &Progress::new())?;
    let environment = &artifacts.environment;
    println!("qemu     {}", environment.qemu_version);
    println!(
        "kernel   {} ({})",
        environment.kernel.release,
        environment.kernel.image.display()
    );
    println!("driver   {}", environment.module.display());
    println!("device   {}", artifacts.backend.display());
    println!("guest    {}", artifacts.agent.display());
    Ok(ExitCode::SUCCESS)
}
