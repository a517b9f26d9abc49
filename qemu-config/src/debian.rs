// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Debian packages: made, checked and installed without root, in systems that are apart from the host's.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::environment::{SetupOptions, workshop};
use crate::sysroot::{self, Sandbox};
use crate::{Progress, Result, process};

/// Where the folder with the source stands inside.
const WORK: &str = "/build";

/// The system that packages are made in.
pub struct PackagingRoot {
    folder: PathBuf,
}

impl PackagingRoot {
    /// Finds or makes it.
    ///
    /// # Errors
    /// As [`crate::prepare`].
    pub fn get(options: &SetupOptions, progress: &Progress) -> Result<Self> {
        let folder = sysroot::packaging_root(&workshop(options, progress)?)?;
        Ok(Self { folder })
    }

    /// Runs a script of `sh` in `work`, which it can write to, and hands each line of its output to `on_line`.
    ///
    /// # Errors
    /// With all that it wrote, when it does not end with 0.
    pub fn run(
        &self,
        what: &str,
        work: &Path,
        script: &str,
        on_line: impl FnMut(&str),
    ) -> Result<String> {
        let sandbox = Sandbox::below(&self.folder, &["usr", "etc", "var"])?.write(work, WORK);
        let script = format!("cd {WORK} && {script}");
        let mut command = sandbox.program("sh", ["-c", &script]).into_command();
        process::watch(what, &mut command, on_line)
    }
}

/// A system with nothing but what Debian needs, and DKMS, in which everything may be changed.
pub struct CleanRoot {
    folder: PathBuf,
}

impl CleanRoot {
    /// Makes a copy of it in `folder`, which must not be there.
    ///
    /// # Errors
    /// As [`crate::prepare`].
    pub fn copy_to(folder: &Path, options: &SetupOptions, progress: &Progress) -> Result<Self> {
        let original = sysroot::clean_root(&workshop(options, progress)?)?;
        let mut command = Command::new("cp");
        command
            .args(["--archive", "--reflink=auto", "--"])
            .arg(&original)
            .arg(folder);
        process::output("copy the clean root", &mut command)?;
        Ok(Self {
            folder: folder.to_owned(),
        })
    }

    /// Where its files are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A command that takes itself for root in it. Nothing of the host is there but `shared`, as `/mnt`.
    ///
    /// # Errors
    /// When there is no bubblewrap.
    pub fn command(&self, shared: &Path, argv: &[&str]) -> Result<Command> {
        let sandbox = Sandbox::as_root(&self.folder)?.write(shared, "/mnt");
        let (program, arguments) = argv.split_first().unwrap_or((&"true", &[]));
        Ok(sandbox.program(program, arguments).into_command())
    }

    /// Runs a script of `sh` in it and returns its output.
    ///
    /// # Errors
    /// With all that it wrote, when it does not end with 0.
    pub fn run(&self, what: &str, shared: &Path, script: &str) -> Result<String> {
        let mut command = self.command(shared, &["sh", "-ec", script])?;
        process::output(what, &mut command)
    }
}
