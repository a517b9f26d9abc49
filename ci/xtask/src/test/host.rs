// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The test programs of the host: built by cargo, and run one by one, so that each result is known to be of which program and a
//! part of the tests can be chosen by name.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use hmm_tests::partition::Partition;
use serde::Deserialize;

use crate::build;

/// A test program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    /// The package's folder and the target: `device/control (test)`.
    pub(crate) name: String,
    path: PathBuf,
    /// The folder of the package, in which its tests run.
    folder: PathBuf,
}

impl Program {
    /// The command that runs it, without arguments.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command
            .current_dir(&self.folder)
            // As cargo does it.
            .env("CARGO_MANIFEST_DIR", &self.folder);
        command
    }

    /// The names of its tests that contain `filter` and belong to this part.
    pub(crate) fn tests(
        &self,
        filter: Option<&str>,
        partition: &Partition,
    ) -> anyhow::Result<Vec<String>> {
        let output = self
            .command()
            .args(["--list", "--format", "terse"])
            .args(filter)
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("cannot start {}", self.path.display()))?;
        ensure!(
            output.status.success(),
            "{} cannot list its tests",
            self.name
        );
        let names = String::from_utf8(output.stdout).context("the list of tests is no text")?;
        Ok(names
            .lines()
            .filter_map(|line| line.strip_suffix(": test"))
            .filter(|name| partition.contains(&format!("{} {name}", self.name)))
            .map(str::to_owned)
            .collect())
    }
}

/// Builds all test programs.
pub(crate) fn build() -> anyhow::Result<Vec<Program>> {
    let output = cargo(&["--no-run", "--message-format", "json-render-diagnostics"])?
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    ensure!(
        output.status.success(),
        "the tests of the host cannot be built"
    );
    let text = String::from_utf8(output.stdout).context("what cargo prints is no text")?;
    let programs: Vec<Program> = text.lines().filter_map(program).collect();
    ensure!(!programs.is_empty(), "cargo has built no test programs");
    Ok(programs)
}

/// `cargo test` for the whole project.
pub(crate) fn cargo(arguments: &[&str]) -> anyhow::Result<Command> {
    build::cargo_test(&[&["--workspace"], arguments].concat())
}

/// What cargo says of a program that it has built.
#[derive(Deserialize)]
struct Artifact {
    executable: Option<PathBuf>,
    manifest_path: PathBuf,
    profile: Profile,
    target: Target,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

fn program(line: &str) -> Option<Program> {
    // Lines about other things have other fields.
    let artifact: Artifact = serde_json::from_str(line).ok()?;
    let path = artifact.executable.filter(|_| artifact.profile.test)?;
    let folder = artifact.manifest_path.parent()?.to_owned();
    let package = folder.file_name()?.to_string_lossy();
    // Targets of one package and kind have different names.
    let kind = artifact.target.kind.join(" ");
    Some(Program {
        name: format!("{package}/{} ({kind})", artifact.target.name),
        path,
        folder,
    })
}

#[cfg(test)]
mod tests {
    use super::program;
    use std::path::Path;

    #[test]
    fn only_test_programs_count() {
        let line = |test: bool, executable: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","package_id":"x","manifest_path":"/p/device/Cargo.toml",
                "target":{{"kind":["test"],"name":"control","src_path":"/p"}},
                "profile":{{"opt_level":"0","test":{test}}},"executable":{executable},"fresh":true}}"#
            )
            .replace('\n', " ")
        };
        let found = program(&line(true, r#""/t/control-1""#)).unwrap();
        assert_eq!(found.name, "device/control (test)");
        assert_eq!(found.path, Path::new("/t/control-1"));
        assert_eq!(found.folder, Path::new("/p/device"));
        assert_eq!(program(&line(false, r#""/t/control""#)), None);
        assert_eq!(program(&line(true, "null")), None);
        assert_eq!(
            program(r#"{"reason":"build-finished","success":true}"#),
            None
        );
        assert_eq!(program("no JSON"), None);
    }
}
