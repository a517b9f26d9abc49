// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask doctor`.

use std::process::ExitCode;

/// Arguments of `doctor`.
#[derive(clap::Args)]
pub(crate) struct Arguments {}

/// Looks at the machine.
pub(crate) fn run(_arguments: &Arguments) -> anyhow::Result<ExitCode> {
    todo!("the list of host programs is being written")
}
