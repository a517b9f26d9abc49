// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The files that the module is built from.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cache::KeyBuilder;
use crate::{Result, SetupError};

/// The folder of the module.
pub(super) const DRIVER: &str = "guest-driver/module";

/// Where the module's sources are, below the project's root: its own folder, and the crates that it shares with
/// programs.
const FOLDERS: &[&str] = &[
    DRIVER,
    "device/protocol/src",
    "guest-driver/logic/src",
    "guest-driver/uapi/src",
];

/// The endings of files that a build may read, and the names of those without one.
const ENDINGS: &[&str] = &["c", "h", "rs"];
const NAMES: &[&str] = &["Kbuild", "Makefile"];

/// All files, relative to `repository`, in a stable order.
pub(super) fn files(repository: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for folder in FOLDERS {
        collect(repository, Path::new(folder), &mut files)?;
    }
    files.sort();
    Ok(files)
}

/// The Rust files that only Kbuild compiles; Cargo's own tools look after the others.
pub(super) fn module_rust_files(repository: &Path) -> Result<Vec<PathBuf>> {
    let in_a_crate = |file: &Path| {
        (file.ancestors().skip(1)).any(|folder| {
            repository.join(folder).join("Cargo.toml").is_file() && folder != Path::new("")
        })
    };
    let mut files = files(repository)?;
    files.retain(|file| file.extension().is_some_and(|ending| ending == "rs") && !in_a_crate(file));
    Ok(files)
}

/// Adds the name and the contents of every file.
pub(super) fn add_to(mut key: KeyBuilder, repository: &Path) -> Result<KeyBuilder> {
    for file in files(repository)? {
        key = key.file(&file.to_string_lossy(), &repository.join(&file))?;
    }
    Ok(key)
}

/// Copies all files from one folder to another, which gets nothing else.
pub(crate) fn copy(repository: &Path, folder: &Path) -> Result<()> {
    for file in files(repository)? {
        let (from, to) = (repository.join(&file), folder.join(&file));
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).map_err(SetupError::io("create", parent))?;
        }
        fs::copy(&from, &to).map_err(SetupError::io("copy", &from))?;
    }
    Ok(())
}

fn collect(repository: &Path, folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let path = repository.join(folder);
    for entry in fs::read_dir(&path).map_err(SetupError::io("list", &path))? {
        let entry = entry.map_err(SetupError::io("list", &path))?;
        let kind = (entry.file_type()).map_err(SetupError::io("examine", &entry.path()))?;
        let name = entry.file_name();
        let relative = folder.join(&name);
        if kind.is_dir() {
            collect(repository, &relative, files)?;
        } else if NAMES.iter().any(|other| name == *other)
            || (relative.extension())
                .is_some_and(|ending| ENDINGS.iter().any(|other| ending == *other))
        {
            files.push(relative);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project() -> tempfile::TempDir {
        let project = tempfile::tempdir().unwrap();
        for file in [
            "guest-driver/module/Kbuild",
            "guest-driver/module/virtio_hmm.rs",
            "guest-driver/module/link/queue.rs",
            "guest-driver/module/c/helpers.c",
            "guest-driver/module/README.md",
            "guest-driver/logic/Cargo.toml",
            "guest-driver/logic/src/lib.rs",
            "guest-driver/logic/tests/model.rs",
            "guest-driver/uapi/Cargo.toml",
            "guest-driver/uapi/src/lib.rs",
            "guest-driver/hmmctl/src/main.rs",
            "device/protocol/Cargo.toml",
            "device/protocol/src/lib.rs",
            "device/src/main.rs",
        ] {
            let path = project.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file).unwrap();
        }
        project
    }

    fn key(project: &Path) -> String {
        let builder = add_to(KeyBuilder::new("driver", 1), project).unwrap();
        builder.finish().hex().to_owned()
    }

    #[test]
    fn what_the_module_is_built_from_is_found_and_nothing_else() {
        let project = project();
        let expected = [
            "device/protocol/src/lib.rs",
            "guest-driver/logic/src/lib.rs",
            "guest-driver/module/Kbuild",
            "guest-driver/module/c/helpers.c",
            "guest-driver/module/link/queue.rs",
            "guest-driver/module/virtio_hmm.rs",
            "guest-driver/uapi/src/lib.rs",
        ];
        assert_eq!(files(project.path()).unwrap(), expected.map(PathBuf::from));
        let own = [
            "guest-driver/module/link/queue.rs",
            "guest-driver/module/virtio_hmm.rs",
        ];
        assert_eq!(
            module_rust_files(project.path()).unwrap(),
            own.map(PathBuf::from)
        );
    }

    #[test]
    fn a_change_of_any_of_them_and_a_rename_changes_the_key() {
        let project = project();
        let before = key(project.path());
        let logic = project.path().join("guest-driver/logic/src/lib.rs");
        fs::write(&logic, "changed").unwrap();
        let changed = key(project.path());
        assert_ne!(before, changed);
        fs::rename(&logic, logic.with_file_name("other.rs")).unwrap();
        assert_ne!(changed, key(project.path()));
    }

    #[test]
    fn a_copy_has_the_same_key() {
        let (project, copied) = (project(), tempfile::tempdir().unwrap());
        copy(project.path(), copied.path()).unwrap();
        assert_eq!(key(project.path()), key(copied.path()));
        assert!(!copied.path().join("device/src").exists());
    }

    #[test]
    fn a_change_elsewhere_does_not() {
        let project = project();
        let before = key(project.path());
        fs::write(project.path().join("device/src/main.rs"), "changed").unwrap();
        fs::write(
            project.path().join("guest-driver/hmmctl/src/main.rs"),
            "changed",
        )
        .unwrap();
        assert_eq!(before, key(project.path()));
    }
}
