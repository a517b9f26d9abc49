// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The examples of the interface, in C and in Rust, as a user builds them: with this machine's compilers.

use super::site::{Site, host_command};
use super::{Outcome, RunTest};
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

pub(super) const TESTS: &[RunTest] = &[
    RunTest::new("run/examples-in-c", in_c),
    RunTest::new("run/examples-in-rust", in_rust),
];

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../guest-driver/uapi");

/// What an example prints.
struct Example {
    name: &'static str,
    in_c: &'static str,
    in_rust: &'static str,
}

impl Example {
    const fn alike(name: &'static str, printed: &'static str) -> Self {
        Self {
            name,
            in_c: printed,
            in_rust: printed,
        }
    }
}

const EXAMPLES: &[Example] = &[
    Example::alike(
        "migrate",
        "4096 pages on the device, 0 in system memory\n0 pages on the device, 4096 in system memory\n",
    ),
    Example::alike("prefetch", "16384 pages moved\n"),
    Example {
        name: "skipped",
        in_c: "39 pages moved; 8 were locked, 1 allowed no access, 16 were holes\n",
        in_rust: "48 pages moved; 16 were holes\n1 page of code stayed: file\n",
    },
    Example::alike("job", "CRC-32C 5250860f of 1048576 bytes\n"),
];

fn in_c(site: &mut Site) -> Result<Outcome> {
    let work = tempfile::tempdir().context("cannot make a folder")?;
    for example in EXAMPLES {
        let source = Path::new(FOLDER).join(format!("examples/{}.c", example.name));
        let program = work.path().join(example.name);
        let output = Command::new("cc")
            .args(["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-I"])
            .arg(Path::new(FOLDER).join("c"))
            .arg(source)
            .arg("-o")
            .arg(&program)
            .output()
            .context("cannot start cc, with which Cargo links")?;
        ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        run(site, &program, example.in_c)?;
    }
    ensure!(
        fs::read_dir(Path::new(FOLDER).join("examples"))?
            .flatten()
            .filter(|entry| entry.path().extension().is_some_and(|end| end == "c"))
            .count()
            == EXAMPLES.len(),
        "an example is not run"
    );
    Ok(Outcome::Passed)
}

fn in_rust(site: &mut Site) -> Result<Outcome> {
    // Cargo tells where it put what it built, one line of JSON each.
    let output = Command::new(env!("CARGO"))
        .args(["build", "--locked", "--package", "hmm-uapi", "--examples"])
        .args(["--features", "client", "--message-format", "json"])
        .current_dir(FOLDER)
        .output()
        .context("cannot start cargo")?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let built: Vec<PathBuf> = String::from_utf8(output.stdout)
        .context("cargo's messages are no text")?
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .collect();
    for example in EXAMPLES {
        let Some(program) = built.iter().find(|path| path.ends_with(example.name)) else {
            bail!("cargo built no {}: {built:?}", example.name);
        };
        run(site, program, example.in_rust)?;
    }
    Ok(Outcome::Passed)
}

fn run(site: &mut Site, program: &Path, expected: &str) -> Result<()> {
    let program = program.to_str().context("the path is no text")?;
    site.run(&host_command(&[program, "/dev/hmm0"]))?
        .expect_output(expected)
}
