// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The versions that everything is built for and tested with.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{Result, SetupError};

/// The parsed `pins.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pins {
    /// Where packages come from.
    pub suites: Suites,
    /// The stock kernel.
    pub kernel: KernelPin,
    /// QEMU and what it needs.
    pub qemu: QemuPins,
    /// What builds the driver.
    pub build_root: BuildRootPins,
}

/// The two Debian suites.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suites {
    /// The release, for example `trixie`.
    pub base: String,
    /// Its backports.
    pub backports: String,
    /// The source packages that are taken from backports.
    pub from_backports: Vec<String>,
}

/// The stock kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelPin {
    /// What `uname -r` says.
    pub release: String,
    /// The version of its packages.
    pub package_version: String,
    /// The package that holds its source.
    pub source_package: String,
}

impl KernelPin {
    /// The part of the release that the kernel's own makefile does not know: everything from the first `+` or `-`.
    #[must_use]
    pub fn local_version(&self) -> &str {
        &self.release[self.version().len()..]
    }

    /// The part of the release that the kernel's own makefile knows: the version of the source.
    #[must_use]
    pub fn version(&self) -> &str {
        let end = self.release.find(['+', '-']);
        &self.release[..end.unwrap_or(self.release.len())]
    }
}

/// QEMU's packages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QemuPins {
    /// Package name to version.
    pub packages: BTreeMap<String, String>,
}

/// The build root's packages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuildRootPins {
    /// The C compiler that built the stock kernel.
    pub compiler: String,
    /// The version of LLVM that builds the debug kernel, as its programs have it in their names: `19` for `clang-19`.
    pub llvm: String,
    /// Packages in whatever version the base suite has.
    pub tools: Vec<String>,
    /// Package name to version.
    pub packages: BTreeMap<String, String>,
}

/// A value that is no name or version of a package.
#[derive(Debug, thiserror::Error)]
enum BadPin {
    #[error("{field}: expected a name of letters, digits and + - . _, found {found:?}")]
    Name { field: &'static str, found: String },
    #[error(
        "{field}: expected a Debian version such as 1.85.1+dfsg1-1, or a prefix of one with * at its end, \
         found {found:?}"
    )]
    Version { field: &'static str, found: String },
}

impl Pins {
    /// Reads a file of pins.
    ///
    /// # Errors
    /// When the file cannot be read, is not the expected TOML or holds a value that cannot be a package or version.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(SetupError::io("read", path))?;
        let pins: Self =
            toml::from_str(&text).map_err(|error| SetupError::invalid(path, error.to_string()))?;
        pins.validate()
            .map_err(|error| SetupError::invalid(path, error.to_string()))?;
        Ok(pins)
    }

    /// The values end up on command lines and in file names, so that their alphabet is Debian's own.
    fn validate(&self) -> Result<(), BadPin> {
        let names = [
            ("suites.base", &self.suites.base),
            ("suites.backports", &self.suites.backports),
            ("kernel.source_package", &self.kernel.source_package),
            ("build_root.compiler", &self.build_root.compiler),
            ("build_root.llvm", &self.build_root.llvm),
        ];
        let lists = (self.suites.from_backports.iter())
            .map(|name| ("suites.from_backports", name))
            .chain((self.build_root.tools.iter()).map(|name| ("build_root.tools", name)))
            .chain((self.build_root.packages.keys()).map(|name| ("build_root.packages", name)))
            .chain((self.qemu.packages.keys()).map(|name| ("qemu.packages", name)));
        for (field, name) in names.into_iter().chain(lists) {
            let valid = name.starts_with(|first: char| first.is_ascii_alphanumeric())
                && (name.bytes())
                    .all(|byte| byte.is_ascii_alphanumeric() || b"+-._".contains(&byte));
            if !valid {
                return Err(BadPin::Name {
                    field,
                    found: name.clone(),
                });
            }
        }
        let versions = [
            ("kernel.release", &self.kernel.release),
            ("kernel.package_version", &self.kernel.package_version),
        ]
        .into_iter()
        .chain((self.build_root.packages.values()).map(|version| ("build_root.packages", version)))
        .chain((self.qemu.packages.values()).map(|version| ("qemu.packages", version)));
        for (field, version) in versions {
            let body = version.strip_suffix('*').unwrap_or(version);
            let valid = body.starts_with(|first: char| first.is_ascii_digit())
                && (body.bytes())
                    .all(|byte| byte.is_ascii_alphanumeric() || b"+-.~:".contains(&byte));
            if !valid {
                return Err(BadPin::Version {
                    field,
                    found: version.clone(),
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project_pins() -> String {
        include_str!("../pins.toml").to_owned()
    }

    fn load(text: &str) -> Result<Pins> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Pins::load(file.path())
    }

    #[test]
    fn the_project_pins_are_valid() {
        let pins = load(&project_pins()).unwrap();
        assert_eq!(pins.kernel.version(), "7.3.4");
        assert_eq!(pins.kernel.local_version(), "+deb13-amd64");
        assert!(pins.qemu.packages.contains_key("qemu-system-x86"));
        assert!(pins.build_root.packages["rustc"].starts_with("1.85.1+"));
    }

    #[test]
    fn an_unknown_field_is_named() {
        let error =
            load(&project_pins().replace("[kernel]", "[kernel]\nrelaese = \"7\"")).unwrap_err();
        assert!(error.to_string().contains("relaese"), "{error}");
    }

    #[test]
    fn a_missing_field_is_named() {
        let text: String = (project_pins().lines())
            .filter(|line| !line.starts_with("package_version"))
            .map(|line| format!("{line}\n"))
            .collect();
        let error = load(&text).unwrap_err();
        assert!(error.to_string().contains("package_version"), "{error}");
    }

    #[test]
    fn a_version_that_apt_could_take_for_an_option_is_refused() {
        let error = load(&project_pins().replace("1.13.2-*", "-o=Debug")).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("qemu.packages") && text.contains("-o=Debug"),
            "{text}"
        );
    }

    #[test]
    fn a_name_with_a_path_in_it_is_refused() {
        let error = load(&project_pins().replace("linux-source-7.3", "../linux")).unwrap_err();
        assert!(
            error.to_string().contains("kernel.source_package"),
            "{error}"
        );
    }
}
