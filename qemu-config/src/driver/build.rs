// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The module.

use std::fs;
use std::path::{Path, PathBuf};

use super::{inputs, module_info};
use crate::cache::{Key, KeyBuilder};
use crate::kernel::{ModuleTree, Modules};
use crate::workshop::Workshop;
use crate::{Result, SetupError, process};

/// The name of the step.
pub(crate) const STEP: &str = "driver";
const VERSION: u32 = 2;
const MODULE: &str = "virtio_hmm.ko";
/// The same with what a debugger reads, which is most of it and not for the guest's memory.
const WITH_DEBUG: &str = "virtio_hmm.ko.debug";

/// What the module is made of.
pub(crate) fn key(workshop: &Workshop, tree: &ModuleTree) -> Result<Key> {
    key_of(&workshop.repository, workshop, tree)
}

fn key_of(sources: &Path, workshop: &Workshop, tree: &ModuleTree) -> Result<Key> {
    let key = KeyBuilder::new(STEP, VERSION).key(&tree.key(workshop)?);
    Ok(inputs::add_to(key, sources)?.finish())
}

/// Finds or builds the module.
pub(crate) fn module(workshop: &Workshop, tree: &ModuleTree) -> Result<PathBuf> {
    module_of(&workshop.repository, workshop, tree)
}

/// The same of the sources in another folder, which has the files of [`inputs::copy`].
pub(crate) fn module_of(sources: &Path, workshop: &Workshop, tree: &ModuleTree) -> Result<PathBuf> {
    let folder = workshop.step(STEP, &key_of(sources, workshop, tree)?, |work| {
        let output = work.join("output");
        fs::create_dir(&output).map_err(SetupError::io("create", &output))?;
        let mut make = tree.make_modules(
            workshop,
            Modules {
                repository: sources,
                folder: inputs::DRIVER,
                output: &output,
                variables: &[],
            },
        )?;
        let release = tree.release(workshop);
        let what = format!("build the driver for {release}");
        let step = workshop.progress.step(&what, None);
        process::watch(&what, &mut make, |line| step.detail(line))
            .map_err(|error| tree.explain(error.of_driver(), workshop))?;
        let built = output.join(MODULE);
        module_info::check(&built, &release, hmm_protocol::VIRTIO_ID)?;
        process::strip_module(&built, &work.join(MODULE))?;
        fs::rename(&built, work.join(WITH_DEBUG)).map_err(SetupError::io("take", &built))?;
        fs::remove_dir_all(&output).map_err(SetupError::io("remove", &output))?;
        step.finish("built");
        Ok(vec![PathBuf::from(MODULE)])
    })?;
    Ok(folder.join(MODULE))
}
