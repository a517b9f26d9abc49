// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The kernel's source with the project's patches.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::source;
use crate::cache::{Key, KeyBuilder};
use crate::workshop::Workshop;
use crate::{Result, SetupError, process};

/// The name of the step.
pub(crate) const STEP: &str = "fixed-source";
const VERSION: u32 = 1;
/// The patches, below the project's root.
const PATCHES: &str = "qemu-config/kernel/fixes";
const FOLDER: &str = "source";

/// What the source is made of.
pub(crate) fn key(workshop: &Workshop) -> Result<Key> {
    let mut key = KeyBuilder::new(STEP, VERSION).key(&source::key(workshop));
    for patch in patches(&workshop.repository.join(PATCHES))? {
        let name = patch.file_name().unwrap_or_default().to_string_lossy();
        key = key.file(&name, &patch)?;
    }
    Ok(key.finish())
}

/// Finds it, or copies the source and applies the patches in the order of their names.
pub(super) fn source(workshop: &Workshop) -> Result<PathBuf> {
    let folder = workshop.step(STEP, &key(workshop)?, |work| {
        let folder = work.join(FOLDER);
        let original = source::source(workshop)?;
        let step = (workshop.progress).step("patch the kernel source", None);
        let mut copy = Command::new("cp");
        copy.arg("--archive").args([&original, &folder]);
        process::watch("copy the kernel source", &mut copy, |_| {})?;
        for patch in patches(&workshop.repository.join(PATCHES))? {
            let mut command = Command::new("patch");
            // A patch that does not fit exactly is one for another kernel.
            command.args(["--strip=1", "--fuzz=0", "--forward", "--batch"]);
            command.arg("--directory").arg(&folder);
            command.arg("--input").arg(&patch);
            let what = format!("apply {}", patch.display());
            process::watch(&what, &mut command, |line| step.detail(line))?;
        }
        step.finish("patched");
        let files = ["Makefile", "Kbuild", "mm/hmm.c"];
        Ok(files.map(|file| Path::new(FOLDER).join(file)).to_vec())
    })?;
    Ok(folder.join(FOLDER))
}

/// The patches in `folder`, in the order in which they are applied.
fn patches(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut patches = Vec::new();
    for entry in fs::read_dir(folder).map_err(SetupError::io("list", folder))? {
        let path = entry.map_err(SetupError::io("list", folder))?.path();
        if path.extension().is_some_and(|ending| ending == "patch") {
            patches.push(path);
        }
    }
    patches.sort();
    Ok(patches)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_patch_of_the_project_names_what_it_fixes() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernel/fixes");
        let patches = patches(&folder).unwrap();
        assert!(!patches.is_empty());
        for (index, patch) in patches.iter().enumerate() {
            let name = patch.file_name().unwrap().to_string_lossy().into_owned();
            assert!(name.starts_with(&format!("{:04}-", index + 1)), "{name}");
            let text = fs::read_to_string(patch).unwrap();
            for part in [
                "Subject: ",
                "\nReproducer: ",
                "\nFixes: ",
                "\nSigned-off-by: ",
            ] {
                assert!(text.contains(part), "{name} lacks {part:?}");
            }
        }
    }

    #[test]
    fn patches_are_applied_in_the_order_of_their_names() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["0002-b.patch", "README.md", "0001-a.patch"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let names: Vec<_> = (patches(folder.path()).unwrap().iter())
            .map(|path| path.file_name().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["0001-a.patch", "0002-b.patch"]);
    }
}
