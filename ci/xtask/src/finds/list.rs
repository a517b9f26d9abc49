// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The finds: `ci/finds/finds.toml`, and a program for each beside it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Where they are, below the project's root.
pub(super) const FOLDER: &str = "ci/finds";
const FILE: &str = "finds.toml";
/// What all programs include.
pub(super) const HEADER: &str = "find.h";

/// All finds, in the order of the file.
#[derive(Debug)]
pub(super) struct Finds(Vec<Find>);

/// A fault of the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Find {
    /// What it is called here. Its program has the same name.
    pub(super) name: String,
    /// The number of its patch in `qemu-config/kernel/fixes`.
    pub(super) patch: String,
    /// What is wrong, in a few words.
    pub(super) title: String,
    /// Where the fault is.
    pub(super) function: String,
    /// What has to happen.
    pub(super) trigger: String,
    /// What comes of it.
    pub(super) consequence: String,
    /// Whom it can happen to beside this driver.
    pub(super) others: String,
    /// Whether it was seen that the program shows the fault without the patch and does not with it.
    pub(super) is_proven: bool,
    /// The fault may leave a kernel that does not go on: it has a guest to itself.
    #[serde(default)]
    pub(super) alone: bool,
    /// The test of the project that shows it in place of a program, where the kernel's test driver cannot.
    pub(super) case: Option<String>,
    /// What the kernel's log has if the fault ends the guest.
    pub(super) splat: Option<String>,
    /// How long the program may take on a stock kernel.
    #[serde(default = "seconds")]
    pub(super) seconds: u32,
}

fn seconds() -> u32 {
    60
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "find")]
    finds: Vec<Find>,
}

/// Why there are no such finds.
#[derive(Debug, thiserror::Error)]
pub(super) enum FindsError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The list does not have the expected form.
    #[error("{}: {source}", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<toml::de::Error>,
    },
    /// An entry makes no sense.
    #[error("the find '{name}' {reason}")]
    Senseless {
        /// The find.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The find has no program.
    #[error("'{name}' has no program; the test {case} shows it")]
    NoProgram {
        /// The find.
        name: String,
        /// The test.
        case: String,
    },
    /// There is no find of this name.
    #[error("there is no find '{name}'; there are: {}", .known.join(", "))]
    Unknown {
        /// What was asked for.
        name: String,
        /// The finds.
        known: Vec<String>,
    },
}

impl Finds {
    /// Reads the list in `folder`.
    pub(super) fn read(folder: &Path) -> Result<Self, FindsError> {
        let path = folder.join(FILE);
        let text = read(&path)?;
        let file: File = toml::from_str(&text).map_err(|source| FindsError::Form {
            path,
            source: Box::new(source),
        })?;
        let finds = Self(file.finds);
        finds.check()?;
        Ok(finds)
    }

    fn check(&self) -> Result<(), FindsError> {
        for (index, find) in self.0.iter().enumerate() {
            if let Some(reason) = find.nonsense(&self.0[..index]) {
                return Err(FindsError::Senseless {
                    name: find.name.clone(),
                    reason,
                });
            }
        }
        Ok(())
    }

    /// All of them.
    pub(super) fn all(&self) -> &[Find] {
        &self.0
    }

    /// Those that have a program.
    fn with_program(&self) -> impl Iterator<Item = &Find> {
        self.0.iter().filter(|find| find.case.is_none())
    }

    /// Those that are named, in the order of the list; all that have a program if none is.
    pub(super) fn named(&self, names: &[String]) -> Result<Vec<&Find>, FindsError> {
        for name in names {
            match self.0.iter().find(|find| find.name == *name) {
                Some(Find {
                    case: Some(case), ..
                }) => {
                    return Err(FindsError::NoProgram {
                        name: name.clone(),
                        case: case.clone(),
                    });
                }
                Some(_) => {}
                None => {
                    return Err(FindsError::Unknown {
                        name: name.clone(),
                        known: self.with_program().map(|find| find.name.clone()).collect(),
                    });
                }
            }
        }
        Ok(self
            .with_program()
            .filter(|find| names.is_empty() || names.contains(&find.name))
            .collect())
    }

    /// Text for `sh -eu` that builds all programs of `folder` in `$OUTPUT`.
    pub(super) fn build_script(&self, folder: &Path) -> Result<String, FindsError> {
        let mut script = String::from("mkdir /tmp/finds\ncd /tmp/finds\n");
        let programs = self.with_program().map(|find| format!("{}.c", find.name));
        for name in programs.chain([HEADER.to_owned()]) {
            let text = read(&folder.join(&name))?;
            // No line of C is the end of the text.
            script.push_str(&format!("cat > {name} <<'{END}'\n{text}\n{END}\n"));
        }
        script.push_str(
            "for program in *.c; do\n    \
             gcc -O2 -std=gnu11 -Wall -Wextra -static -D_GNU_SOURCE -I\"$SOURCE\" -o \"$OUTPUT/${program%.c}\" \"$program\" -lpthread\n\
             done\n",
        );
        Ok(script)
    }
}

/// Ends a text in the script.
const END: &str = "END OF THE TEXT";

impl Find {
    /// What is wrong with it, if `others` stand before it in the list.
    fn nonsense(&self, others: &[Self]) -> Option<&'static str> {
        let is_word = |text: &str| {
            !text.is_empty()
                && (text.bytes())
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        };
        if !is_word(&self.name) {
            return Some("is to be called by small letters, digits and hyphens");
        }
        if others.iter().any(|other| other.name == self.name) {
            return Some("is there twice");
        }
        if self.patch.len() != 4 || !self.patch.bytes().all(|byte| byte.is_ascii_digit()) {
            return Some("is to name its patch by four digits");
        }
        let texts = [
            &self.title,
            &self.function,
            &self.trigger,
            &self.consequence,
            &self.others,
        ];
        if texts.iter().any(|text| text.trim().is_empty()) {
            return Some("has an empty text");
        }
        if self.splat.is_some() && !self.alone {
            return Some("ends its guest, so it is to have one alone");
        }
        None
    }
}

fn read(path: &Path) -> Result<String, FindsError> {
    fs::read_to_string(path).map_err(|source| FindsError::Read {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn folder() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../finds")
    }

    /// A find that makes sense.
    pub(in super::super) fn find(name: &str) -> Find {
        Find {
            name: name.to_owned(),
            patch: "0001".to_owned(),
            title: "is wrong".to_owned(),
            function: "f()".to_owned(),
            trigger: "a write".to_owned(),
            consequence: "a loss".to_owned(),
            others: "all".to_owned(),
            is_proven: true,
            alone: false,
            case: None,
            splat: None,
            seconds: 60,
        }
    }

    #[test]
    fn each_find_has_a_program_and_a_patch_and_each_of_these_a_find() {
        let finds = Finds::read(&folder()).unwrap();
        let files = |folder: &Path, ending: &str| {
            let mut names: Vec<_> = (fs::read_dir(folder).unwrap())
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .filter_map(|name| name.strip_suffix(ending).map(str::to_owned))
                .collect();
            names.sort();
            names
        };
        let mut names: Vec<_> = finds.with_program().map(|find| find.name.clone()).collect();
        names.sort();
        assert_eq!(files(&folder(), ".c"), names);
        let patches = files(&folder().join("../../qemu-config/kernel/fixes"), ".patch");
        let mut numbers: Vec<_> = patches.iter().map(|name| name[..4].to_owned()).collect();
        let mut named: Vec<_> = (finds.all().iter())
            .map(|find| find.patch.clone())
            .collect();
        named.sort();
        named.dedup();
        numbers.sort();
        assert_eq!(named, numbers);
    }

    #[test]
    fn each_program_says_its_licence_and_all_fit_into_one_argument() {
        let finds = Finds::read(&folder()).unwrap();
        for find in finds.with_program() {
            let text = read(&folder().join(format!("{}.c", find.name))).unwrap();
            assert!(
                text.starts_with("// SPDX-License-Identifier: "),
                "{}",
                find.name
            );
            assert!(!text.contains(END), "{}", find.name);
        }
        // Linux allows 128 KiB for one argument of a program.
        let script = finds.build_script(&folder()).unwrap();
        assert!(script.len() < 120_000, "{} bytes", script.len());
    }

    #[test]
    fn finds_are_named_and_unknown_ones_are_told_with_those_that_are() {
        let finds = Finds(vec![find("a"), find("b")]);
        let names = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
            let found = finds.named(&names)?;
            Ok::<_, FindsError>(
                found
                    .iter()
                    .map(|find| find.name.clone())
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(names(&[]).unwrap(), ["a", "b"]);
        assert_eq!(names(&["b"]).unwrap(), ["b"]);
        let error = names(&["a", "c"]).unwrap_err().to_string();
        assert!(error.contains("'c'") && error.contains("a, b"), "{error}");
    }

    #[test]
    fn a_find_without_a_program_is_left_out_and_names_its_test() {
        let mut other = find("b");
        other.case = Some("policy/x".to_owned());
        let finds = Finds(vec![find("a"), other]);
        assert_eq!(finds.named(&[]).unwrap().len(), 1);
        let error = finds.named(&["b".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("policy/x"), "{error}");
    }

    #[test]
    fn entries_that_make_no_sense_are_refused() {
        let of = |change: fn(&mut Find)| {
            let mut changed = find("b");
            change(&mut changed);
            Finds(vec![find("a"), changed]).check().is_err()
        };
        assert!(!of(|_| {}));
        assert!(of(|find| find.name = "a".to_owned()));
        assert!(of(|find| find.name = "A b".to_owned()));
        assert!(of(|find| find.patch = "1".to_owned()));
        assert!(of(|find| find.others = " ".to_owned()));
        assert!(of(|find| find.splat = Some("BUG".to_owned())));
    }
}
