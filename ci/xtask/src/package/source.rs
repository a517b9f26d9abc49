// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A source package: the files of the repository at their own places, the compiled programs and their documents in `built`, the
//! source of the driver in `driver`, and `debian`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::{build, documents};

/// Where the packages are described.
const DEBIAN: &str = "ci/packages/debian";
/// What the packages take of the repository, files and folders.
const TAKEN: [&str; 5] = [
    "device/packaging",
    "docs/device-control.md",
    "docs/uapi.md",
    "guest-driver/uapi/c",
    "guest-driver/uapi/examples",
];

/// Writes it into `folder`, which is made.
pub(super) fn write(folder: &Path, programs: &[PathBuf]) -> Result<()> {
    let repository = build::repository()?;
    copy(&repository.join(DEBIAN), &folder.join("debian"))?;
    for taken in TAKEN {
        copy(&repository.join(taken), &folder.join(taken))?;
    }
    let built = folder.join("built");
    for program in programs {
        let name = program.file_name().context("a program has no name")?;
        copy(program, &built.join(name))?;
    }
    documents::write(&built.join("documents"))?;
    hmm_vm::copy_driver(&folder.join("driver"))?;
    Ok(())
}

/// Copies a file, or a folder with all that is in it.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let failed = || format!("cannot copy {}", from.display());
    if from.is_dir() {
        fs::create_dir_all(to).with_context(failed)?;
        for entry in fs::read_dir(from).with_context(failed)? {
            let name = entry.with_context(failed)?.file_name();
            copy(&from.join(&name), &to.join(&name))?;
        }
        return Ok(());
    }
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).with_context(failed)?;
    }
    fs::copy(from, to).map(drop).with_context(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first line of the file that names the version: `NAME (VERSION) …`.
    #[test]
    fn the_packages_have_the_version_of_the_project() {
        let changelog = build::repository().unwrap().join(DEBIAN).join("changelog");
        let text = fs::read_to_string(changelog).unwrap();
        let head = format!("{} ({}) ", super::super::NAME, super::super::VERSION);
        assert!(text.starts_with(&head), "{text}");
    }

    #[test]
    fn what_the_packages_take_is_there() {
        let repository = build::repository().unwrap();
        for taken in TAKEN {
            assert!(repository.join(taken).exists(), "{taken}");
        }
    }

    #[test]
    fn the_unit_and_qemus_description_start_what_the_package_installs() {
        let repository = build::repository().unwrap();
        let read = |path: &str| fs::read_to_string(repository.join(path)).unwrap();
        let install = read("ci/packages/debian/vhost-user-hmm.install");
        assert!(
            install.contains("built/vhost-user-hmm usr/libexec\n"),
            "{install}"
        );
        let program = "/usr/libexec/vhost-user-hmm";
        let unit = read("device/packaging/vhost-user-hmm@.service");
        assert!(unit.contains(&format!("\nExecStart={program} ")), "{unit}");
        let description = read("device/packaging/50-vhost-user-hmm.json");
        let description: serde_json::Value = serde_json::from_str(&description).unwrap();
        assert_eq!(description["binary"], program);
    }
}
