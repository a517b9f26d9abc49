// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Mutants of the driver: each is the driver without one check that it makes when a device is lost or comes back, and the
//! case that notices.
//!
//! A mutant is a file `tests/mutants/NAME.patch`: lines `FIELD: TEXT`, and a patch of the driver's sources after them.
//!
//! | field | meaning |
//! | --- | --- |
//! | `Check` | what the driver does not do any more |
//! | `Noticed-by` | the case that must fail without it |
//! | `Guest` | the guest that has the case: [`MutantGuest`]; `cases` if it is not given |
//! | `Kernel` | `stock` (if it is not given) or `debug` |
//!
//! `cargo xtask mutants` builds and runs them.

use crate::splat::Rules;
use crate::{bounce, restart};
use hmm_vm::guest::{BootSpec, DeviceSpec};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::{fs, io};

/// The folder of the patches, below the project's root.
const FOLDER: &str = "tests/mutants";

/// Why a mutant cannot be read or made.
#[derive(Debug, thiserror::Error)]
pub enum MutantError {
    /// A file or a folder cannot be read or written.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file is no mutant.
    #[error("{path}: {reason}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The driver has changed, and the patch has not.
    #[error("{path} does not apply to {file}: {reason}")]
    DoesNotApply {
        /// The patch.
        path: PathBuf,
        /// The file that it changes.
        file: String,
        /// Why.
        reason: String,
    },
}

impl MutantError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

/// A guest that has the case which notices a mutant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum MutantGuest {
    /// `cases`: the one of most cases.
    #[default]
    Cases,
    /// `bounce-buffers`: the one of the test `boot/bounce-buffers`.
    BounceBuffers,
    /// `restart`: the one of the test `boot/restart`.
    Restart,
}

impl FromStr for MutantGuest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "cases" => Ok(Self::Cases),
            "bounce-buffers" => Ok(Self::BounceBuffers),
            "restart" => Ok(Self::Restart),
            other => Err(format!(
                "expected the guest `cases`, `bounce-buffers` or `restart`, found `{other}`"
            )),
        }
    }
}

impl MutantGuest {
    /// What is booted, of the usual guest, and what its log must not have.
    ///
    /// # Errors
    /// None but a fault of this program.
    pub fn of(self, mut spec: BootSpec, rules: Rules) -> anyhow::Result<(BootSpec, Rules)> {
        Ok(match self {
            Self::Cases => {
                spec.append.push("numa=fake=2".to_owned());
                spec.devices.push(DeviceSpec {
                    memory: "64M".parse()?,
                    ..DeviceSpec::new(&spec.machine)
                });
                (spec, rules)
            }
            Self::BounceBuffers => (bounce::guest(spec), rules),
            Self::Restart => restart::guest(spec, rules),
        })
    }
}

/// A mutant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mutant {
    /// The name of its file, without the ending.
    pub name: String,
    /// What the driver does not do any more.
    pub check: String,
    /// The case that notices.
    pub noticed_by: String,
    /// The guest that has it.
    pub guest: MutantGuest,
    /// Whether the case needs the debug kernel.
    pub needs_debug_kernel: bool,
    path: PathBuf,
    changes: Vec<Change>,
}

/// What is done to one file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Change {
    /// The file, below the project's root.
    file: String,
    patch: String,
}

impl Mutant {
    /// All mutants of a project, in the order of their names.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn all(repository: &Path) -> Result<Vec<Self>, MutantError> {
        let folder = repository.join(FOLDER);
        let mut mutants = Vec::new();
        for entry in fs::read_dir(&folder).map_err(MutantError::io("list", &folder))? {
            let path = entry.map_err(MutantError::io("list", &folder))?.path();
            if path.extension().is_some_and(|ending| ending == "patch") {
                mutants.push(Self::read(&path)?);
            }
        }
        mutants.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(mutants)
    }

    fn read(path: &Path) -> Result<Self, MutantError> {
        let text = fs::read_to_string(path).map_err(MutantError::io("read", path))?;
        Self::parse(path, &text).map_err(|reason| MutantError::Invalid {
            path: path.to_owned(),
            reason,
        })
    }

    fn parse(path: &Path, text: &str) -> Result<Self, String> {
        let name = (path.file_stem()).map_or_else(String::new, |stem| stem.display().to_string());
        let mut mutant = Self {
            name,
            check: String::new(),
            noticed_by: String::new(),
            guest: MutantGuest::default(),
            needs_debug_kernel: false,
            path: path.to_owned(),
            changes: Vec::new(),
        };
        let mut in_patch = false;
        for line in text.split_inclusive('\n') {
            if let Some(file) = line.strip_prefix("--- a/") {
                in_patch = true;
                mutant.changes.push(Change {
                    file: file.trim_end().to_owned(),
                    patch: line.to_owned(),
                });
            } else if in_patch {
                if let Some(change) = mutant.changes.last_mut() {
                    change.patch.push_str(line);
                }
            } else if !line.trim().is_empty() {
                let (field, value) = line
                    .split_once(": ")
                    .ok_or_else(|| format!("expected `FIELD: TEXT`, found {line:?}"))?;
                mutant.set(field, value.trim())?;
            }
        }
        if mutant.check.is_empty() || mutant.noticed_by.is_empty() {
            return Err("`Check` or `Noticed-by` is missing".to_owned());
        }
        if mutant.changes.is_empty() {
            return Err("there is no patch".to_owned());
        }
        Ok(mutant)
    }

    fn set(&mut self, field: &str, value: &str) -> Result<(), String> {
        match field {
            "SPDX-License-Identifier" => {}
            "Check" => value.clone_into(&mut self.check),
            "Noticed-by" => value.clone_into(&mut self.noticed_by),
            "Guest" => self.guest = value.parse()?,
            "Kernel" => {
                self.needs_debug_kernel = match value {
                    "stock" => false,
                    "debug" => true,
                    other => {
                        return Err(format!(
                            "expected the kernel `stock` or `debug`, found `{other}`"
                        ));
                    }
                }
            }
            other => return Err(format!("there is no field `{other}`")),
        }
        Ok(())
    }

    /// Changes the sources in `folder`, which has what the project has.
    ///
    /// # Errors
    /// When the patch does not fit them.
    pub fn apply(&self, folder: &Path) -> Result<(), MutantError> {
        for (path, text) in self.changed(folder)? {
            fs::write(&path, text).map_err(MutantError::io("write", &path))?;
        }
        Ok(())
    }

    /// The files of `folder` that it changes, as they are afterwards.
    fn changed(&self, folder: &Path) -> Result<Vec<(PathBuf, String)>, MutantError> {
        let one = |change: &Change| {
            let path = folder.join(&change.file);
            let source = fs::read_to_string(&path).map_err(MutantError::io("read", &path))?;
            let wrong = |reason: String| MutantError::DoesNotApply {
                path: self.path.clone(),
                file: change.file.clone(),
                reason,
            };
            let patch =
                diffy::Patch::from_str(&change.patch).map_err(|error| wrong(error.to_string()))?;
            let text = diffy::apply(&source, &patch).map_err(|error| wrong(error.to_string()))?;
            if text == source {
                return Err(wrong("it changes nothing".to_owned()));
            }
            Ok((path, text))
        };
        self.changes.iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{Mutant, MutantGuest};
    use std::path::{Path, PathBuf};

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
    }

    #[test]
    fn each_mutant_applies_to_the_driver_as_it_is() {
        let mutants = Mutant::all(&root()).unwrap();
        assert!(mutants.len() >= 10, "{} mutants", mutants.len());
        for mutant in &mutants {
            let changed = mutant.changed(&root());
            assert!(changed.is_ok(), "{}", changed.unwrap_err());
        }
    }

    #[test]
    fn each_mutant_has_a_check_of_its_own() {
        let mutants = Mutant::all(&root()).unwrap();
        for (index, mutant) in mutants.iter().enumerate() {
            for other in &mutants[index + 1..] {
                assert!(
                    mutant.check != other.check && mutant.changes != other.changes,
                    "{} and {} are the same",
                    mutant.name,
                    other.name
                );
            }
        }
    }

    const TEXT: &str = "SPDX-License-Identifier: GPL-2.0-only\nCheck: it looks\nNoticed-by: a/b\n\
        Guest: restart\nKernel: debug\n\n--- a/one.rs\n+++ b/one.rs\n@@ -1,3 +1,2 @@\n a\n-look\n b\n";

    #[test]
    fn a_mutant_is_fields_and_a_patch() {
        let folder = tempfile::tempdir().unwrap();
        let mutant = Mutant::parse(Path::new("x/blind.patch"), TEXT).unwrap();
        assert_eq!(mutant.name, "blind");
        assert_eq!((&*mutant.check, &*mutant.noticed_by), ("it looks", "a/b"));
        assert_eq!(mutant.guest, MutantGuest::Restart);
        assert!(mutant.needs_debug_kernel);
        let file = folder.path().join("one.rs");
        std::fs::write(&file, "a\nlook\nb\n").unwrap();
        mutant.apply(folder.path()).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "a\nb\n");
        // Not twice.
        let again = mutant.apply(folder.path()).unwrap_err().to_string();
        assert!(
            again.contains("blind.patch") && again.contains("one.rs"),
            "{again}"
        );
    }

    #[test]
    fn what_is_no_mutant_is_refused() {
        let refused = |text: &str| Mutant::parse(Path::new("x.patch"), text).unwrap_err();
        for (from, to, expected) in [
            ("Check: it looks\n", "", "missing"),
            ("Noticed-by: a/b\n", "", "missing"),
            ("Guest: restart", "Guest: other", "other"),
            ("Kernel: debug", "Kernel: fast", "fast"),
            ("Kernel: debug", "Colour: red", "Colour"),
            ("Kernel: debug", "debug", "FIELD"),
        ] {
            let text = TEXT.replace(from, to);
            let reason = refused(&text);
            assert!(reason.contains(expected), "{reason}");
        }
        let fields = TEXT.split("--- a/").next().unwrap();
        assert!(refused(fields).contains("no patch"));
    }
}
