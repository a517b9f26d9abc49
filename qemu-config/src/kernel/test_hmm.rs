// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The kernel's own `lib/test_hmm.c` as a module: a driver of device-private memory whose device is the processor.
//!
//! No kernel of a distribution has it. It is built outside of the kernel's source, so that every kernel gets it the same
//! way, whatever its configuration says.

use std::fs;
use std::path::PathBuf;

use super::ModuleTree;
use crate::cache::KeyBuilder;
use crate::process::strip_module;
use crate::workshop::Workshop;
use crate::{Result, SetupError, process};

/// The name of the step.
const STEP: &str = "test-hmm";
const VERSION: u32 = 1;
/// What it is made of, below the kernel's source.
const SOURCES: [&str; 2] = ["lib/test_hmm.c", "lib/test_hmm_uapi.h"];
const KBUILD: &str = "obj-m := test_hmm.o\n";
const MODULE: &str = "test_hmm.ko";

/// Finds or builds it for the kernel of `tree`.
pub(crate) fn test_hmm(workshop: &Workshop, tree: &ModuleTree) -> Result<PathBuf> {
    let key = KeyBuilder::new(STEP, VERSION)
        .key(&tree.key(workshop)?)
        .finish();
    let folder = workshop.step(STEP, &key, |work| {
        const FOLDER: &str = "module";
        let (module, output) = (work.join(FOLDER), work.join("output"));
        for folder in [&module, &output] {
            fs::create_dir(folder).map_err(SetupError::io("create", folder))?;
        }
        let source = tree.source(workshop)?;
        for file in SOURCES.map(|file| source.join(file)) {
            let name = file.file_name().unwrap_or_default();
            fs::copy(&file, module.join(name)).map_err(SetupError::io("copy", &file))?;
        }
        let kbuild = module.join("Kbuild");
        fs::write(&kbuild, KBUILD).map_err(SetupError::io("write", &kbuild))?;
        let mut make = tree.make_modules(workshop, work, FOLDER, &output, &[])?;
        let what = format!("build test_hmm for {}", tree.release(workshop));
        let step = workshop.progress.step(&what, None);
        process::watch(&what, &mut make, |line| step.detail(line))?;
        strip_module(&output.join(MODULE), &work.join(MODULE))?;
        for folder in [&module, &output] {
            fs::remove_dir_all(folder).map_err(SetupError::io("remove", folder))?;
        }
        step.finish("built");
        Ok(vec![PathBuf::from(MODULE)])
    })?;
    Ok(folder.join(MODULE))
}
