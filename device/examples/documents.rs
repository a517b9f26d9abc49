// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Writes the manual page and the shells' completions of `vhost-user-hmm` into a folder, for packages:
//! `cargo run -p vhost-user-hmm --example documents -- FOLDER`.

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{CommandFactory, ValueEnum};
use clap_complete::{Shell, generate_to};
use vhost_user_hmm::config::Args;

fn write(folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut command = Args::command();
    clap_mangen::generate_to(command.clone(), folder)?;
    for shell in Shell::value_variants() {
        generate_to(*shell, &mut command, "vhost-user-hmm", folder)?;
    }
    Ok(())
}

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("expected a folder to write to");
        return ExitCode::from(2);
    };
    match write(&folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Cannot write to {}: {error}", folder.display());
            ExitCode::FAILURE
        }
    }
}
