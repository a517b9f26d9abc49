// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Runs one test program, passes on what it prints as it comes, and keeps its results.

use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;

use super::failures::Failures;
use super::results::TestResult;
use super::tally::Tally;
use crate::signals::Followers;

/// What came of a test program.
#[derive(Clone, Debug)]
pub(crate) struct Ran {
    /// What it is called.
    pub(crate) name: String,
    /// How long it took.
    pub(crate) time: Duration,
    /// The results that it counted.
    pub(crate) tally: Tally,
    /// Its results.
    pub(crate) results: Vec<TestResult>,
    /// Why tests failed.
    pub(crate) failures: Failures,
    /// Its exit code, if no signal ended it.
    pub(crate) code: Option<i32>,
}

impl Ran {
    /// Nothing yet.
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            time: Duration::ZERO,
            tally: Tally::default(),
            results: Vec::new(),
            failures: Failures::default(),
            code: None,
        }
    }

    /// Looks at a line that the program printed.
    pub(crate) fn line(&mut self, line: &str) {
        self.tally += Tally::of_line(line);
        self.failures.line(line);
        self.results.extend(TestResult::of_line(line));
    }
}

/// Runs `command` to its end. A program that could not be run or that ended in the middle counts as one failure.
pub(crate) fn run(name: &str, mut command: Command, followers: &Followers) -> anyhow::Result<Ran> {
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        // With what it starts, so that all of it ends with this program.
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))?;
    let included = followers.include(&child);
    let mut output = (child.stdout.take()).context("the output of the tests is missing")?;
    let mut ran = Ran::new(name);
    let mut line = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let length = match output.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).context("cannot read what the tests print"),
        };
        let bytes = &buffer[..length];
        let mut stdout = io::stdout().lock();
        (stdout.write_all(bytes))
            .and_then(|()| stdout.flush())
            .context("cannot write to standard output")?;
        for &byte in bytes {
            if byte == b'\n' {
                ran.line(&String::from_utf8_lossy(&line));
                line.clear();
            } else {
                line.push(byte);
            }
        }
    }
    drop(included);
    let status = child.wait().context("cannot wait for the tests")?;
    ran.code = status.code();
    if ran.code != Some(0) && ran.tally.failed == 0 {
        ran.tally.failed = 1;
    }
    ran.time = started.elapsed();
    Ok(ran)
}
