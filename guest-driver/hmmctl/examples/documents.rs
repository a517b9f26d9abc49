// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Writes the manual pages of `hmmctl` and its commands, and the shells' completions, into a folder, for packages:
//! `cargo run -p hmmctl --example documents -- FOLDER`.

use clap::ValueEnum;
use clap_complete::{Shell, generate_to};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn write(folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut command = hmmctl::command_line();
    clap_mangen::generate_to(command.clone(), folder)?;
    for shell in Shell::value_variants() {
        generate_to(*shell, &mut command, "hmmctl", folder)?;
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
            eprintln!("cannot write to {}: {error}", folder.display());
            ExitCode::FAILURE
        }
    }
}
