// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask documents`: the manual pages and the shells' completions of all programs, for packages.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use clap::{CommandFactory, ValueEnum};
use clap_complete::{Shell, generate_to};

use crate::{Cli, build};

/// Options of `documents`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Where to write them. The folder is made.
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
}

/// Programs that write their own.
const PROGRAMS: [&str; 2] = ["vhost-user-hmm", "hmmctl"];
/// Pages that nothing can be made from.
const PAGES: [&str; 1] = ["guest-driver/uapi/man/virtio_hmm.4"];

/// Writes all of them, and says where.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    write(&arguments.folder)?;
    println!("{}", arguments.folder.display());
    Ok(ExitCode::SUCCESS)
}

/// Writes all of them into `folder`, which is made.
pub(crate) fn write(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for package in PROGRAMS {
        let status = Command::new(env!("CARGO"))
            .args(["run", "--quiet", "--locked", "--release"])
            .args(["--package", package, "--example", "documents", "--"])
            .arg(folder)
            .status()
            .context("cannot start cargo")?;
        ensure!(status.success(), "the documents of {package}: {status}");
    }
    let repository = build::repository()?;
    for page in PAGES {
        let from = repository.join(page);
        let name = Path::new(page).file_name().unwrap_or(OsStr::new(page));
        std::fs::copy(&from, folder.join(name))
            .with_context(|| format!("cannot copy {}", from.display()))?;
    }
    let mut command = Cli::command().bin_name("xtask");
    for shell in Shell::value_variants() {
        generate_to(*shell, &mut command, "xtask", folder).context("cannot write completions")?;
    }
    Ok(())
}
