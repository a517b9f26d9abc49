// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The module that delays kernel functions, which makes rare races certain: `guest-driver/delays`.

use std::fs;
use std::path::PathBuf;

use crate::cache::KeyBuilder;
use crate::kernel::{ModuleTree, Modules};
use crate::workshop::Workshop;
use crate::{Result, SetupError, process};

const VERSION: u32 = 1;
const FOLDER: &str = "guest-driver/delays";
const SOURCES: &[&str] = &["Kbuild", "hmm_delays.c"];
const MODULE: &str = "hmm_delays.ko";

/// Finds or builds the module.
pub(crate) fn delays(workshop: &Workshop, tree: &ModuleTree) -> Result<PathBuf> {
    let mut key = KeyBuilder::new("delays", VERSION).key(&tree.key(workshop)?);
    for name in SOURCES {
        key = key.file(name, &workshop.repository.join(FOLDER).join(name))?;
    }
    let folder = workshop.step("delays", &key.finish(), |work| {
        let output = work.join("output");
        fs::create_dir(&output).map_err(SetupError::io("create", &output))?;
        let mut make = tree.make_modules(
            workshop,
            Modules {
                repository: &workshop.repository,
                folder: FOLDER,
                output: &output,
                variables: &[],
            },
        )?;
        let what = format!("build the delays for {}", tree.release(workshop));
        let step = workshop.progress.step(&what, None);
        process::watch(&what, &mut make, |line| step.detail(line))
            .map_err(SetupError::of_driver)?;
        process::strip_module(&output.join(MODULE), &work.join(MODULE))?;
        fs::remove_dir_all(&output).map_err(SetupError::io("remove", &output))?;
        step.finish("built");
        Ok(vec![PathBuf::from(MODULE)])
    })?;
    Ok(folder.join(MODULE))
}
