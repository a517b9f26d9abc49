// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask setup`.

use std::process::ExitCode;

use hmm_vm::Progress;

use crate::setup_arguments::SetupArguments;

/// Arguments of `setup`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    setup: SetupArguments,
}

/// Prepares the environment and says where its parts are.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let environment = hmm_vm::prepare(&arguments.setup.options(), &Progress::new())?;
    println!("qemu     {}", environment.qemu_version);
    println!(
        "kernel   {} ({})",
        environment.kernel.release,
        environment.kernel.image.display()
    );
    println!("driver   {}", environment.module.display());
    Ok(ExitCode::SUCCESS)
}
