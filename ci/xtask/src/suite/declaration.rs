// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a suite is and how it runs: `suite.toml` in its folder. `ci/suites/README.md` describes each field.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use glob::Pattern;
use hmm_vm::{ByteSize, OwnModule};
use serde::Deserialize;

use super::expected::{Expected, ExpectedError};

/// A suite.
#[derive(Debug)]
pub(super) struct Suite {
    /// The name of its folder.
    pub(super) name: String,
    pub(super) declaration: Declaration,
    pub(super) expected: Expected,
}

/// Why there is no such suite.
#[derive(Debug, thiserror::Error)]
pub(super) enum SuiteError {
    /// There is no folder of this name.
    #[error("there is no suite '{name}'; there are: {}", .known.join(", "))]
    Unknown {
        /// What was asked for.
        name: String,
        /// The suites.
        known: Vec<String>,
    },
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file does not have the expected form.
    #[error("{}: {source}", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<toml::de::Error>,
    },
    /// A declaration makes no sense.
    #[error("{}: {reason}", path.display())]
    Senseless {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: &'static str,
    },
    /// The expectations make no sense.
    #[error("{}: {source}", path.display())]
    Expected {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ExpectedError,
    },
}

/// `suite.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Declaration {
    /// What the suite is, in a few words.
    pub(super) summary: String,
    pub(super) build: Build,
    #[serde(default)]
    pub(super) guest: Guest,
    pub(super) run: Run,
    /// The kinds of guest that are compared.
    #[serde(rename = "side")]
    pub(super) sides: Vec<Side>,
}

/// How the suite is built.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Build {
    /// See [`hmm_vm::ProgramBuild::script`].
    #[serde(default)]
    pub(super) script: String,
    /// Debian's packages that the script or the guest needs beside those of the build root.
    #[serde(default)]
    pub(super) packages: Vec<String>,
}

/// What all its guests have in common.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Guest {
    /// How much memory; the machine's own when it is missing.
    pub(super) memory: Option<ByteSize>,
    /// How many processors; the machine's own when it is missing.
    pub(super) cpus: Option<u32>,
    /// Words for the kernel's command line.
    #[serde(default)]
    pub(super) append: Vec<String>,
    /// Programs that the guest has: of the packages if there are any, else of the build root.
    #[serde(default)]
    pub(super) programs: Vec<String>,
    /// Files and folders of the packages that the guest has at their own place; `{release}` stands for its kernel's release.
    #[serde(default)]
    pub(super) files: Vec<String>,
}

/// How the suite runs.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Run {
    /// Text for `sh -eu`, in the folder of what was built.
    pub(super) script: String,
    /// The script's arguments for each case when only some are to run; `{case}` stands for its name.
    #[serde(default)]
    pub(super) select: Vec<String>,
    /// The cases that every change can afford, each as a pattern with `*`; all when it is empty.
    #[serde(default)]
    pub(super) quick: Vec<String>,
    /// Text for `sh -eu` that runs once before the cases, for `exit` only.
    #[serde(default)]
    pub(super) before: String,
    /// How long one case may take on a stock kernel, for `exit` only.
    #[serde(default = "case_seconds")]
    pub(super) case_seconds: u32,
    /// In which form the script prints its results.
    pub(super) verdict: Verdict,
    /// How long all cases may take on a stock kernel.
    limit_seconds: u32,
}

/// In which form results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// The Test Anything Protocol, as the kernel's selftests speak it.
    Tap,
    /// The script runs once for each case, with its name as the argument: 0 is a pass, 4 a skip, all else a failure.
    Exit,
}

fn case_seconds() -> u32 {
    120
}

/// A kind of guest.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Side {
    /// What it is called in the report.
    pub(super) name: String,
    /// How many devices it has; without any the driver is not loaded.
    #[serde(default)]
    pub(super) devices: u32,
    /// How much private memory each has; the machine's own when it is missing.
    pub(super) device_memory: Option<ByteSize>,
    /// The driver's module parameters.
    #[serde(default)]
    pub(super) driver_parameters: String,
    /// Moves the memory of all processes of the suite while it runs.
    #[serde(rename = "move")]
    pub(super) mover: Option<Mover>,
    /// Modules of the kernel's own that are loaded.
    #[serde(default)]
    pub(super) modules: Vec<Module>,
}

/// How `hmmctl run` moves memory.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mover {
    /// Its `--policy`.
    pub(super) policy: String,
    /// Its `--interval`, in milliseconds.
    pub(super) interval: u32,
}

/// A module of the kernel's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Module {
    /// See [`OwnModule::TestHmm`].
    TestHmm,
    /// See [`OwnModule::Loop`].
    Loop,
}

impl Module {
    pub(super) fn own(self) -> OwnModule {
        match self {
            Self::TestHmm => OwnModule::TestHmm,
            Self::Loop => OwnModule::Loop,
        }
    }
}

/// How many times longer everything takes on such a kernel.
fn slowness(is_debug: bool) -> u64 {
    const DEBUG_FACTOR: u64 = 5;
    if is_debug { DEBUG_FACTOR } else { 1 }
}

impl Run {
    /// How long all cases may take. Everything is slower on a kernel that is built to find bugs.
    pub(super) fn limit(&self, is_debug: bool) -> Duration {
        Duration::from_secs(u64::from(self.limit_seconds) * slowness(is_debug))
    }

    /// How many seconds one case may take.
    pub(super) fn case_limit(&self, is_debug: bool) -> u64 {
        u64::from(self.case_seconds) * slowness(is_debug)
    }

    /// Those of `cases` that every change can afford.
    pub(super) fn quick<'a>(&self, cases: &[&'a str]) -> Vec<&'a str> {
        let fits = |case: &str| {
            self.quick.is_empty()
                || (self.quick.iter())
                    .filter_map(|pattern| Pattern::new(pattern).ok())
                    .any(|pattern| pattern.matches(case))
        };
        (cases.iter().copied()).filter(|case| fits(case)).collect()
    }

    /// The script's arguments that select these cases.
    pub(super) fn selection(&self, cases: &[&str]) -> Vec<String> {
        cases
            .iter()
            .flat_map(|case| self.select.iter().map(|word| word.replace("{case}", case)))
            .collect()
    }
}

impl Suite {
    /// Reads a suite of `folder`.
    pub(super) fn read(folder: &Path, name: &str) -> Result<Self, SuiteError> {
        let known = all(folder)?;
        if !known.iter().any(|known| known == name) {
            return Err(SuiteError::Unknown {
                name: name.to_owned(),
                known,
            });
        }
        let path = folder.join(name).join(FILE);
        let declaration: Declaration = read(&path)?;
        if let Some(reason) = declaration.nonsense() {
            return Err(SuiteError::Senseless { path, reason });
        }
        let path = folder.join(name).join("expected.toml");
        let expected =
            Expected::new(read(&path)?).map_err(|source| SuiteError::Expected { path, source })?;
        Ok(Self {
            name: name.to_owned(),
            declaration,
            expected,
        })
    }
}

impl Declaration {
    /// What is wrong with it although each part has its form.
    fn nonsense(&self) -> Option<&'static str> {
        let names: Vec<_> = self.sides.iter().map(|side| &side.name).collect();
        if names.is_empty() {
            return Some("expected at least one [[side]], found none");
        }
        if (names.iter().enumerate()).any(|(index, name)| names[..index].contains(name)) {
            return Some("expected each side to have a name of its own");
        }
        if self
            .run
            .quick
            .iter()
            .any(|text| Pattern::new(text).is_err())
        {
            return Some("expected patterns with * in run.quick");
        }
        if (self.sides.iter()).any(|side| side.mover.is_some() && side.devices == 0) {
            return Some("expected a device on each side that moves memory");
        }
        if self.build.script.is_empty() && self.build.packages.is_empty() {
            return Some("expected a script or packages in build");
        }
        let files = &self.guest.files;
        if !files.iter().all(|file| file.starts_with('/')) {
            return Some("expected absolute paths in guest.files");
        }
        let is_tap = self.run.verdict == Verdict::Tap;
        if is_tap && !self.run.select.iter().any(|word| word.contains("{case}")) {
            return Some("expected {case} in run.select, which stands for the name of a case");
        }
        None
    }
}

const FILE: &str = "suite.toml";

/// The names of all suites, sorted.
fn all(folder: &Path) -> Result<Vec<String>, SuiteError> {
    let failed = |source| SuiteError::Read {
        path: folder.to_owned(),
        source,
    };
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.path().join(FILE).is_file()
            && let Ok(name) = entry.file_name().into_string()
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, SuiteError> {
    let text = fs::read_to_string(path).map_err(|source| SuiteError::Read {
        path: path.to_owned(),
        source,
    })?;
    toml::from_str(&text).map_err(|source| SuiteError::Form {
        path: path.to_owned(),
        source: Box::new(source),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../suites")
    }

    #[test]
    fn the_project_s_suites_can_be_read() {
        let names = all(&folder()).unwrap();
        assert!(names.contains(&"hmm-tests".to_owned()), "{names:?}");
        for name in names {
            let suite = Suite::read(&folder(), &name).unwrap();
            assert!(!suite.declaration.summary.is_empty(), "{name}");
        }
    }

    #[test]
    fn a_suite_that_is_not_there_is_told_with_those_that_are() {
        for name in ["nothing", "../suites/hmm-tests", "", "."] {
            let error = Suite::read(&folder(), name).unwrap_err().to_string();
            assert!(error.contains("hmm-tests"), "{error}");
        }
    }

    #[test]
    fn cases_are_selected_in_the_words_of_the_suite() {
        let suite = Suite::read(&folder(), "hmm-tests").unwrap();
        let selection = suite.declaration.run.selection(&["a.b", "c"]);
        assert_eq!(selection, ["-r", "a.b", "-r", "c"]);
    }

    #[test]
    fn the_quick_cases_are_those_that_a_pattern_names() {
        let text = fs::read_to_string(folder().join("hmm-tests").join(FILE)).unwrap();
        let quick = |text: &str| {
            let declaration: Declaration = toml::from_str(text).unwrap();
            declaration.run.quick(&["a 1", "a 2", "b"]).join(",")
        };
        assert_eq!(quick(&text), "a 1,a 2,b");
        let some = text.replace("select =", "quick = [\"a*\"]\nselect =");
        assert_eq!(quick(&some), "a 1,a 2");
    }

    #[test]
    fn declarations_that_make_no_sense_are_refused() {
        let text = fs::read_to_string(folder().join("hmm-tests").join(FILE)).unwrap();
        let nonsense = |text: &str| toml::from_str::<Declaration>(text).unwrap().nonsense();
        assert_eq!(nonsense(&text), None);
        let twice = text.replace("name = \"test_hmm\"", "name = \"virtio-hmm\"");
        assert!(nonsense(&twice).unwrap().contains("name of its own"));
        let deaf = text.replace("{case}", "case");
        assert!(nonsense(&deaf).unwrap().contains("{case}"));
        let alone = format!("{text}move = {{policy = \"churn\", interval = 20}}\n");
        assert!(nonsense(&alone).unwrap().contains("a device"));
        let bent = text.replace("select =", "quick = [\"[\"]\nselect =");
        assert!(nonsense(&bent).unwrap().contains("run.quick"));
        assert!(toml::from_str::<Declaration>(&text.replace("summary", "sumary")).is_err());
    }
}
