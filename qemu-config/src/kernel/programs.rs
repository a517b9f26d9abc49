// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Programs that a script builds from the kernel's source with the compilers of the build root, such as other people's
//! test suites.

use std::fs;
use std::path::{Path, PathBuf};

use super::ModuleTree;
use crate::cache::KeyBuilder;
use crate::process;
use crate::sysroot::{BuildRoot, extra, extra_key};
use crate::workshop::Workshop;
use crate::{Result, SetupError};

const VERSION: u32 = 1;
/// Where the script finds the source, and where it puts what it builds.
const SOURCE_INSIDE: &str = "/build/source";
const OUTPUT_INSIDE: &str = "/build/output";
const PACKAGES_INSIDE: &str = "/build/packages";

/// What is built.
#[derive(Debug, Clone, Copy)]
pub struct ProgramBuild<'a> {
    /// Its name in messages and in the cache: a word of letters, digits and hyphens.
    pub name: &'a str,
    /// Text for `sh -eu`. `$SOURCE` is the kernel's source, `$OUTPUT` an empty folder for the result; nothing else can be
    /// written to but `/tmp`.
    pub script: &'a str,
    /// Packages whose files the script finds below `$PACKAGES`, beside those of the build root.
    pub packages: &'a [String],
}

/// Finds or builds the programs, and returns the folder that the script has filled.
pub(crate) fn programs(
    build: ProgramBuild<'_>,
    workshop: &Workshop,
    tree: &ModuleTree,
) -> Result<PathBuf> {
    const OUTPUT: &str = "output";
    let step_name = format!("programs-{}", build.name);
    let mut key = KeyBuilder::new(&step_name, VERSION)
        .text(build.script)
        .key(&tree.source_key(workshop)?)
        .key(&BuildRoot::key(workshop));
    if !build.packages.is_empty() {
        key = key.key(&extra_key(workshop, build.packages));
    }
    let key = key.finish();
    let folder = workshop.step(&step_name, &key, |work| {
        let output = work.join(OUTPUT);
        fs::create_dir(&output).map_err(SetupError::io("create", &output))?;
        let source = tree.source(workshop)?;
        let root = BuildRoot::get(workshop)?;
        let mut sandbox = (root.sandbox()?)
            .read(&source, SOURCE_INSIDE)
            .write(&output, OUTPUT_INSIDE);
        if !build.packages.is_empty() {
            let packages = extra(workshop, build.name, build.packages)?;
            sandbox = sandbox.read(&packages, PACKAGES_INSIDE);
        }
        let mut command = sandbox.program("sh", ["-euc", build.script]).into_command();
        command
            .env("SOURCE", SOURCE_INSIDE)
            .env("OUTPUT", OUTPUT_INSIDE)
            .env("PACKAGES", PACKAGES_INSIDE);
        let what = format!("build {}", build.name);
        let step = workshop.progress.step(&what, None);
        process::watch(&what, &mut command, |line| step.detail(line))?;
        let mut files = Vec::new();
        list(work, Path::new(OUTPUT), &mut files)?;
        if files.is_empty() {
            return Err(SetupError::invalid(
                &output,
                format!("the build of {} left no file in $OUTPUT", build.name),
            ));
        }
        step.finish("built");
        Ok(files)
    })?;
    Ok(folder.join(OUTPUT))
}

/// The files below `folder`, which is named relative to `base`, as are they.
fn list(base: &Path, folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let path = base.join(folder);
    for entry in fs::read_dir(&path).map_err(SetupError::io("list", &path))? {
        let entry = entry.map_err(SetupError::io("list", &path))?;
        let kind = (entry.file_type()).map_err(SetupError::io("examine", &entry.path()))?;
        let place = folder.join(entry.file_name());
        if kind.is_dir() {
            list(base, &place, files)?;
        } else if kind.is_file() {
            files.push(place);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_listed_with_their_folders_and_links_are_not() {
        let base = tempfile::tempdir().unwrap();
        let output = base.path().join("output");
        fs::create_dir_all(output.join("inner")).unwrap();
        fs::write(output.join("program"), "").unwrap();
        fs::write(output.join("inner/data"), "").unwrap();
        std::os::unix::fs::symlink("program", output.join("link")).unwrap();
        let mut files = Vec::new();
        list(base.path(), Path::new("output"), &mut files).unwrap();
        files.sort();
        assert_eq!(
            files,
            [Path::new("output/inner/data"), Path::new("output/program")]
        );
    }
}
