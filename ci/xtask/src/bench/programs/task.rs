// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The programs that are run, and their input. Each takes some seconds alone under emulation.

use std::env;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Context;

const HASH: &str = include_str!("hash.pl");
const REST: &str = include_str!("rest.py");
const REDIS: &str = include_str!("redis.sh");
/// Lines that are sorted, and functions that are compiled.
const LINES: u32 = 400_000;
const FUNCTIONS: u32 = 40;
/// What a program writes before the part of its memory at rest that is away, to standard error.
const RESTING: &str = "at rest, away: ";

/// A program and what it needs.
pub(super) struct Task {
    /// What it is called in the report.
    pub(super) name: &'static str,
    /// Whether two runs give the same output.
    pub(super) is_repeatable: bool,
    needs: &'static [&'static str],
    argv: &'static [&'static str],
    input: fn() -> (&'static str, String),
}

impl Task {
    /// All programs.
    pub(super) fn all() -> Vec<Self> {
        vec![
            Self {
                name: "sort",
                is_repeatable: true,
                needs: &["sort"],
                argv: &["sort", "lines"],
                input: || ("lines", lines()),
            },
            Self {
                name: "perl-hash",
                is_repeatable: true,
                needs: &["perl"],
                argv: &["perl", "hash.pl"],
                input: || ("hash.pl", HASH.to_owned()),
            },
            Self {
                name: "gcc",
                is_repeatable: true,
                needs: &["gcc"],
                argv: &["gcc", "-O2", "-S", "-o", "-", "functions.c"],
                input: || ("functions.c", functions()),
            },
            Self {
                name: "python3",
                is_repeatable: true,
                // Not the first of the path: that may be a script which looks for another.
                needs: &["/usr/bin/python3"],
                argv: &["/usr/bin/python3", "rest.py"],
                input: || ("rest.py", REST.to_owned()),
            },
            Self {
                name: "redis",
                is_repeatable: false,
                needs: &["redis-server", "redis-benchmark", "redis-cli"],
                argv: &["sh", "redis.sh"],
                input: || ("redis.sh", REDIS.to_owned()),
            },
        ]
    }

    /// Whether this machine has the program.
    pub(super) fn is_possible(&self) -> bool {
        let path = env::var_os("PATH").unwrap_or_default();
        let is_there =
            |program: &&str| env::split_paths(&path).any(|folder| folder.join(program).is_file());
        self.needs.iter().all(is_there)
    }

    /// Writes the input into a folder, which is the program's working directory.
    pub(super) fn prepare(&self, folder: &Path) -> anyhow::Result<()> {
        let (name, text) = (self.input)();
        let file = folder.join(name);
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
    }

    /// The command, alone or under a policy.
    pub(super) fn argv(&self, policy: Option<&str>) -> Vec<OsString> {
        let runner = policy.map(|policy| ["hmmctl", "run", "--quiet", "--policy", policy, "--"]);
        let words = runner.iter().flatten().chain(self.argv);
        words.map(OsString::from).collect()
    }
}

/// The part of its memory at rest that was away, as a program told.
pub(super) fn resting_away(errors: &str) -> Option<f64> {
    let told = errors.lines().find_map(|line| line.strip_prefix(RESTING));
    told?.parse().ok()
}

/// Numbers in no order, always the same.
fn lines() -> String {
    let mut text = String::new();
    let mut number = 1_u64;
    for _ in 0..LINES {
        number = number
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}", number >> 33);
    }
    text
}

/// Functions that give the optimizer something to do.
fn functions() -> String {
    let mut text = String::new();
    for number in 0..FUNCTIONS {
        let _ = writeln!(
            text,
            "int f{number}(int a, int b, int *p) {{\n\
             int s = {number};\n\
             for (int i = 0; i < a; i++) {{\n\
             s += p[i] * {} ^ b;\n\
             switch (s % 5) {{ case 0: s += b; break; case 1: s ^= a; break; case 2: s *= 3; break;\n\
             case 3: p[i] = s; break; default: s--; }}\n\
             }}\n\
             for (int j = 0; j < b; j++) for (int k = 0; k < 8; k++) p[j * 8 + k] += s * k;\n\
             return s;\n}}",
            number + 3
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Task, functions, lines, resting_away};

    #[test]
    fn a_program_runs_alone_or_below_hmmctl() {
        let tasks = Task::all();
        let sort = tasks.iter().find(|task| task.name == "sort").unwrap();
        assert_eq!(sort.argv(None), ["sort", "lines"]);
        assert_eq!(
            sort.argv(Some("churn")),
            [
                "hmmctl", "run", "--quiet", "--policy", "churn", "--", "sort", "lines"
            ]
        );
        assert!(sort.is_possible());
    }

    #[test]
    fn what_is_away_is_told_on_a_line_of_its_own() {
        assert_eq!(resting_away("warning\nat rest, away: 0.93\n"), Some(0.93));
        assert_eq!(resting_away("at rest, away: all\n"), None);
        assert_eq!(resting_away(""), None);
    }

    #[test]
    fn inputs_are_always_the_same() {
        assert_eq!(lines().lines().count(), 400_000);
        assert_eq!(lines(), lines());
        assert_eq!(functions().matches("return s;").count(), 40);
    }
}
