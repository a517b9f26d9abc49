// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Builds the project's own programs: the device process for the host, and static programs for the guest.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use hmm_vm::{Artifacts, Controls, KernelChoice, OwnModule, Progress, SetupOptions};

use crate::setup_arguments::SetupArguments;

/// The target of the guest's programs. It is named although it is usually the host's own, so that the flags that make
/// a program static do not reach build scripts and procedural macros.
const GUEST_TARGET: &str = "x86_64-unknown-linux-gnu";
/// The packages of the programs that the tests run in guests.
const PROGRAMS: [&str; 2] = ["python3-minimal", "redis-server"];
/// What makes a program static: in the guest there is no loader and no library. Words are separated as Cargo has it.
const STATIC: &str = "-C\u{1f}target-feature=+crt-static";

/// Sets the machine up, builds the programs and writes the list of all that to `target/hmm/artifacts.json`.
pub(crate) fn artifacts(
    arguments: &SetupArguments,
    progress: &Progress,
) -> anyhow::Result<Artifacts> {
    artifacts_for(&arguments.options(), progress)
}

/// The same with the kernel that `options` name.
pub(crate) fn artifacts_for(
    options: &SetupOptions,
    progress: &Progress,
) -> anyhow::Result<Artifacts> {
    let artifacts = make(options, progress)?;
    artifacts.save(&target_folder()?.join("hmm").join("artifacts.json"))?;
    Ok(artifacts)
}

/// The same for the tests on one kernel. Returns the list of all that, which is one for each kernel.
pub(crate) fn test_artifacts(
    options: &SetupOptions,
    progress: &Progress,
) -> anyhow::Result<PathBuf> {
    let mut artifacts = make(options, progress)?;
    artifacts.device_program = Some(hmm_vm::device_program(options, progress)?);
    artifacts.programs = Some(hmm_vm::packages(
        "programs",
        &PROGRAMS.map(str::to_owned),
        options,
        progress,
    )?);
    if artifacts.environment.kernel.debug {
        artifacts.controls = Some(Controls {
            test_hmm: hmm_vm::test_hmm(options, progress)?,
            kmemleak_test: hmm_vm::own_module(OwnModule::KmemleakTest, options, progress)?,
        });
    }
    let name = match options.kernel {
        KernelChoice::Stock => "tests-stock.json",
        KernelChoice::Debug => "tests-debug.json",
        KernelChoice::Fixed => "tests-fixed.json",
        KernelChoice::Tree(_) => "tests-tree.json",
    };
    let list = target_folder()?.join("hmm").join(name);
    artifacts.save(&list)?;
    Ok(list)
}

fn make(options: &SetupOptions, progress: &Progress) -> anyhow::Result<Artifacts> {
    let environment = hmm_vm::prepare(options, progress)?;
    let target = target_folder()?;
    cargo(
        progress,
        "build the device process",
        &["build", "--release", "--package", "vhost-user-hmm"],
        &target,
        None,
    )?;
    let guest = target.join("guest");
    cargo(
        progress,
        "build the guest's programs",
        &[
            "build",
            "--release",
            "--target",
            GUEST_TARGET,
            "--package",
            "hmm-agent",
            "--package",
            "hmmctl",
        ],
        &guest,
        Some(STATIC),
    )?;
    let guest_program = |name: &str| guest.join(GUEST_TARGET).join("release").join(name);
    Ok(Artifacts {
        environment,
        agent: guest_program("hmm-agent"),
        hmmctl: guest_program("hmmctl"),
        backend: target.join("release").join("vhost-user-hmm"),
        runs: target.join("vm"),
        device_program: None,
        controls: None,
        programs: None,
    })
}

/// Builds the programs that packages have, for the host, and returns where they are.
pub(crate) fn packaged_programs(progress: &Progress) -> anyhow::Result<Vec<PathBuf>> {
    const PACKAGED: [&str; 2] = ["vhost-user-hmm", "hmmctl"];
    let target = target_folder()?;
    cargo(
        progress,
        "build the programs",
        &[
            "build",
            "--release",
            "--package",
            PACKAGED[0],
            "--package",
            PACKAGED[1],
        ],
        &target,
        None,
    )?;
    Ok(PACKAGED
        .map(|name| target.join("release").join(name))
        .to_vec())
}

/// The root of the project that this program was built from.
pub(crate) fn repository() -> anyhow::Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize()
        .with_context(|| format!("cannot find the project in {}", root.display()))
}

/// The folder that everything of this checkout is built in.
pub(crate) fn target_folder() -> anyhow::Result<PathBuf> {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => {
            std::path::absolute(&folder).context("the target folder has no absolute path")
        }
        None => Ok(repository()?.join("target")),
    }
}

/// `cargo test` with these arguments, with the programs in the folder of this checkout.
pub(crate) fn cargo_test(arguments: &[&str]) -> anyhow::Result<Command> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(program);
    command
        .arg("test")
        .args(arguments)
        .arg("--target-dir")
        .arg(target_folder()?)
        .current_dir(repository()?);
    Ok(command)
}

/// Runs Cargo. Nothing is said when everything is up to date.
fn cargo(
    progress: &Progress,
    what: &str,
    arguments: &[&str],
    target: &Path,
    flags: Option<&str>,
) -> anyhow::Result<()> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(&program);
    command
        .args(arguments)
        .arg("--target-dir")
        .arg(target)
        .current_dir(repository()?)
        .env("CARGO_TERM_COLOR", "never")
        .env("CARGO_TERM_PROGRESS_WHEN", "never")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    if let Some(flags) = flags {
        command
            .env_remove("RUSTFLAGS")
            .env("CARGO_ENCODED_RUSTFLAGS", flags)
            // The guest's image is memory of the guest.
            .env("CARGO_PROFILE_RELEASE_DEBUG", "false")
            .env("CARGO_PROFILE_RELEASE_STRIP", "debuginfo");
    }
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start {}", program.to_string_lossy()))?;
    let stderr = child
        .stderr
        .take()
        .context("the output of cargo is missing")?;
    let mut said = String::new();
    let mut step = None;
    for line in BufReader::new(stderr).lines() {
        let line = line.context("cannot read what cargo says")?;
        if let Some(package) = line.trim_start().strip_prefix("Compiling ") {
            step.get_or_insert_with(|| progress.step(what, None))
                .detail(package);
        }
        said.push_str(&line);
        said.push('\n');
    }
    let status = child.wait().context("cannot wait for cargo")?;
    if !status.success() {
        bail!(
            "cannot {what}: cargo {} ended with {status}:\n{said}",
            arguments.join(" ")
        );
    }
    if let Some(step) = step {
        step.finish("built");
    }
    Ok(())
}
