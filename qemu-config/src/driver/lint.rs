// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The form and the lints of the module's sources, by the tools of the compiler that builds it.

use std::fs;
use std::path::{Path, PathBuf};

use super::inputs;
use crate::cache::KeyBuilder;
use crate::kernel::{ModuleTree, Modules};
use crate::sysroot::BuildRoot;
use crate::workshop::Workshop;
use crate::{Result, SetupError, process};

const STEP: &str = "driver-lint";
const VERSION: u32 = 1;
/// Clippy instead of the compiler, and every warning an error.
const VARIABLES: &[&str] = &["CLIPPY=1", "W=e"];

/// Checks the sources; a check that passed is not repeated for the same sources.
pub(crate) fn lint(workshop: &Workshop, tree: &ModuleTree) -> Result<()> {
    let key = KeyBuilder::new(STEP, VERSION)
        .value(&VARIABLES)
        .key(&tree.key(workshop)?);
    let key = inputs::add_to(key, &workshop.repository)?;
    let key = (key.file(
        "rustfmt.toml",
        &workshop.repository.join("guest-driver/module/rustfmt.toml"),
    )?)
    .finish();
    workshop.step(STEP, &key, |work| {
        let mut make = tree.make_modules(
            workshop,
            Modules {
                repository: &workshop.repository,
                folder: inputs::DRIVER,
                output: work,
                variables: VARIABLES,
            },
        )?;
        let step = workshop.progress.step("check the driver's form", None);
        let form = check_form(workshop);
        step.finish(verdict(&form));
        let step = workshop.progress.step("check the driver with clippy", None);
        let lints = process::watch("clippy of the driver", &mut make, |line| step.detail(line))
            .map_err(SetupError::of_driver);
        step.finish(verdict(&lints));
        both(form, lints)?;
        remove_contents(work)?;
        Ok(Vec::new())
    })?;
    Ok(())
}

fn verdict<T>(outcome: &Result<T>) -> &'static str {
    match outcome {
        Ok(_) => "nothing found",
        Err(_) => "failed",
    }
}

/// What both checks found, when both found something.
fn both(form: Result<String>, lints: Result<String>) -> Result<()> {
    match (form, lints) {
        (
            Err(SetupError::Driver {
                what: first,
                output: form,
            }),
            Err(SetupError::Driver {
                what: second,
                output: lints,
            }),
        ) => Err(SetupError::Driver {
            what: format!("{first} and {second}"),
            output: format!("{form}\n{lints}"),
        }),
        (form, lints) => form.and(lints).map(drop),
    }
}

fn check_form(workshop: &Workshop) -> Result<String> {
    const REPOSITORY_INSIDE: &str = "/build/repository";
    let inside = |file: &Path| Path::new(REPOSITORY_INSIDE).join(file);
    let files = inputs::module_rust_files(&workshop.repository)?;
    let sandbox = BuildRoot::get(workshop)?.sandbox()?;
    let arguments = (["--check", "--config-path"].map(PathBuf::from).into_iter())
        .chain([inside(Path::new("guest-driver/module/rustfmt.toml"))])
        .chain(files.iter().map(|file| inside(file)));
    let sandbox = sandbox.read(&workshop.repository, REPOSITORY_INSIDE);
    let mut command = sandbox.program("rustfmt", arguments).into_command();
    process::watch("rustfmt --check of the driver", &mut command, |_| {})
        .map_err(SetupError::of_driver)
}

/// Only the fact that the check passed is kept.
fn remove_contents(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(SetupError::io("list", folder))? {
        let path = (entry.map_err(SetupError::io("list", folder))?).path();
        let removed = if path.is_dir() {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        removed.map_err(SetupError::io("remove", &path))?;
    }
    Ok(())
}
