// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask fuzz`: libFuzzer on the device's targets, guided by coverage. The seeds of the repository are replayed
//! first; what is found beside goes to a corpus in the target folder, from which the next run goes on.

mod summary;

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::Context;
use hmm_vm::Progress;
use hmm_vm::host::{self, Task};

use crate::build;
use summary::Summary;

/// Arguments of `fuzz`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The targets, one after the other; all of them unless some are named.
    #[arg(value_parser = TARGETS)]
    targets: Vec<String>,
    /// How long each target is fuzzed, beside the replay of its seeds.
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
}

const TARGETS: [&str; 7] = [
    "decoder",
    "rings",
    "queues",
    "jobs",
    "messages",
    "programs",
    "translations",
];
/// The package of the targets, which is not of the workspace: it links libFuzzer.
const PACKAGE: &str = "device/fuzz/libfuzzer";
/// The platform is named so that build scripts are not instrumented.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";
/// Counters for every edge and comparisons for libFuzzer to learn from. Words are separated as Cargo has it.
const INSTRUMENTED: &str = "-Cpasses=sancov-module\u{1f}\
                            -Cllvm-args=-sanitizer-coverage-level=4\u{1f}\
                            -Cllvm-args=-sanitizer-coverage-inline-8bit-counters\u{1f}\
                            -Cllvm-args=-sanitizer-coverage-pc-table\u{1f}\
                            -Cllvm-args=-sanitizer-coverage-trace-compares\u{1f}\
                            --cfg\u{1f}fuzzing\u{1f}-Ccodegen-units=1\u{1f}-Cdebug-assertions";
/// The longest input, bytes.
const LONGEST: &str = "-max_len=16384";
/// An input that takes longer hangs, seconds.
const HANG: &str = "-timeout=60";

/// Builds the targets and fuzzes them one after the other, also after one has failed.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let progress = Progress::new();
    let root = build::repository()?;
    let target = build::target_folder()?.join("libfuzzer");
    // Cargo downloads as well, so there is no point in being offline.
    host::ensure(Task::Fuzz, false, &progress)?;
    progress.line("build the fuzz targets with counters for coverage");
    let built = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")))
        .args(["build", "--quiet", "--release", "--target", PLATFORM])
        .arg("--manifest-path")
        .arg(root.join(PACKAGE).join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .env_remove("RUSTFLAGS")
        .env("CARGO_ENCODED_RUSTFLAGS", INSTRUMENTED)
        .status()
        .context("cannot start cargo")?;
    anyhow::ensure!(
        built.success(),
        "the fuzz targets cannot be built; the reason is above"
    );
    let programs = target.join(PLATFORM).join("release");
    let mut failed = false;
    for name in TARGETS {
        if !arguments.targets.is_empty() && !arguments.targets.iter().any(|wanted| wanted == name) {
            continue;
        }
        failed |= !fuzz(
            name,
            &programs.join(name),
            &root,
            &target,
            arguments.seconds,
        )?;
    }
    Ok(if failed {
        ExitCode::from(crate::FAILURE)
    } else {
        ExitCode::SUCCESS
    })
}

/// Fuzzes one target. Returns whether it stood everything.
fn fuzz(
    name: &str,
    program: &Path,
    root: &Path,
    target: &Path,
    seconds: u32,
) -> anyhow::Result<bool> {
    let (corpus, failures) = (target.join("corpus").join(name), target.join("failures"));
    for folder in [&corpus, &failures] {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    }
    let mut prefix = OsString::from("-artifact_prefix=");
    prefix.push(failures.join(format!("{name}-")));
    let mut child = Command::new(program)
        .arg(format!("-max_total_time={seconds}"))
        .args(["-print_final_stats=1", LONGEST, HANG])
        .arg(prefix)
        .arg(&corpus)
        .arg(root.join("device/fuzz/seeds").join(name))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let output = child
        .stderr
        .take()
        .context("the output of the target is missing")?;
    let (mut summary, mut said) = (Summary::default(), Vec::new());
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("cannot read what the target says")?;
        let line = String::from_utf8_lossy(&line).into_owned();
        if !summary.take(&line) {
            said.push(line);
        }
    }
    let status = child.wait().context("cannot wait for the target")?;
    if status.success() {
        println!("fuzz {name}: {summary} in {seconds} s");
        return Ok(true);
    }
    eprintln!("{}", said.join("\n"));
    eprintln!(
        "error: fuzz {name}: an input in {} ended with {status}; `{} FILE` runs it again. \
         Put it into device/fuzz/seeds/{name} together with the fix",
        failures.display(),
        program.display()
    );
    Ok(false)
}
