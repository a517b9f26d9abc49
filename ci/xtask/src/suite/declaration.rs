// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a suite is and how it runs: `suite.toml` in its folder. `ci/suites/README.md` describes each field.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

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
    pub(super) script: String,
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
    /// Programs of the build root that the guest has.
    #[serde(default)]
    pub(super) programs: Vec<String>,
}

/// How the suite runs.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Run {
    /// Text for `sh -eu`, in the folder of what was built.
    pub(super) script: String,
    /// The script's arguments for each case when only some are to run; `{case}` stands for its name.
    pub(super) select: Vec<String>,
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
    /// Modules of the kernel's own that are loaded.
    #[serde(default)]
    pub(super) modules: Vec<Module>,
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

impl Run {
    /// How long all cases may take. Everything is slower on a kernel that is built to find bugs.
    pub(super) fn limit(&self, is_debug: bool) -> Duration {
        const DEBUG_FACTOR: u64 = 5;
        let factor = if is_debug { DEBUG_FACTOR } else { 1 };
        Duration::from_secs(u64::from(self.limit_seconds) * factor)
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
        if !self.run.select.iter().any(|word| word.contains("{case}")) {
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
    fn declarations_that_make_no_sense_are_refused() {
        let text = fs::read_to_string(folder().join("hmm-tests").join(FILE)).unwrap();
        let nonsense = |text: &str| toml::from_str::<Declaration>(text).unwrap().nonsense();
        assert_eq!(nonsense(&text), None);
        let twice = text.replace("name = \"test_hmm\"", "name = \"virtio-hmm\"");
        assert!(nonsense(&twice).unwrap().contains("name of its own"));
        let deaf = text.replace("{case}", "case");
        assert!(nonsense(&deaf).unwrap().contains("{case}"));
        assert!(toml::from_str::<Declaration>(&text.replace("summary", "sumary")).is_err());
    }
}
