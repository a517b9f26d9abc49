// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The module.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{inputs, module_info};
use crate::cache::{Key, KeyBuilder};
use crate::environment::{Kernel, KernelChoice};
use crate::kernel::{self, PreparedTree, UsersTree};
use crate::workshop::Workshop;
use crate::{Result, SetupError, process};

/// The name of the step.
pub(crate) const STEP: &str = "driver";
const VERSION: u32 = 2;
const MODULE: &str = "virtio_hmm.ko";
/// The same with what a debugger reads, which is most of it and not for the guest's memory.
const WITH_DEBUG: &str = "virtio_hmm.ko.debug";

/// The kernel that the module is for. Nothing is made before it is needed.
pub(crate) enum ModuleTree {
    Stock,
    Users(UsersTree),
}

impl ModuleTree {
    /// Looks at the user's tree if one was chosen.
    pub(crate) fn open(choice: &KernelChoice) -> Result<Self> {
        match choice {
            KernelChoice::Stock => Ok(Self::Stock),
            KernelChoice::Tree(folder) => UsersTree::open(folder).map(Self::Users),
        }
    }

    /// The image and the release.
    pub(crate) fn kernel(&self, workshop: &Workshop) -> Result<Kernel> {
        match self {
            Self::Stock => kernel::image(workshop),
            Self::Users(tree) => Ok(tree.kernel()),
        }
    }

    /// Modules of the kernel itself that the guest loads before the driver.
    pub(crate) fn helper_modules(&self, workshop: &Workshop) -> Result<Vec<PathBuf>> {
        Ok(match self {
            Self::Stock => vec![kernel::overlay(workshop)?],
            Self::Users(tree) => tree.overlay().into_iter().collect(),
        })
    }

    /// A `make` of the module that writes to `output` only. What the build needs is made first.
    pub(super) fn make(
        &self,
        workshop: &Workshop,
        output: &Path,
        variables: &[&str],
    ) -> Result<Command> {
        let repository = &workshop.repository;
        match self {
            Self::Stock => PreparedTree::get(workshop)?.make_modules(
                repository,
                inputs::DRIVER,
                output,
                variables,
            ),
            Self::Users(tree) => tree.make_modules(workshop, inputs::DRIVER, output, variables),
        }
    }

    /// What the tree is made of.
    pub(super) fn key(&self, workshop: &Workshop) -> Result<Key> {
        match self {
            Self::Stock => Ok(PreparedTree::key(workshop)),
            Self::Users(tree) => tree.key(),
        }
    }

    fn release<'a>(&'a self, workshop: &'a Workshop) -> &'a str {
        match self {
            Self::Stock => &workshop.pins.kernel.release,
            Self::Users(tree) => tree.release(),
        }
    }
}

/// What the module is made of.
pub(crate) fn key(workshop: &Workshop, tree: &ModuleTree) -> Result<Key> {
    let key = KeyBuilder::new(STEP, VERSION).key(&tree.key(workshop)?);
    Ok(inputs::add_to(key, &workshop.repository)?.finish())
}

/// Finds or builds the module.
pub(crate) fn module(workshop: &Workshop, tree: &ModuleTree) -> Result<PathBuf> {
    let folder = workshop.step(STEP, &key(workshop, tree)?, |work| {
        let output = work.join("output");
        fs::create_dir(&output).map_err(SetupError::io("create", &output))?;
        let mut make = tree.make(workshop, &output, &[])?;
        let release = tree.release(workshop);
        let what = format!("build the driver for {release}");
        let step = workshop.progress.step(&what, None);
        process::watch(&what, &mut make, |line| step.detail(line))
            .map_err(SetupError::of_driver)?;
        let built = output.join(MODULE);
        module_info::check(&built, release, hmm_protocol::VIRTIO_ID)?;
        process::strip_module(&built, &work.join(MODULE))?;
        fs::rename(&built, work.join(WITH_DEBUG)).map_err(SetupError::io("take", &built))?;
        fs::remove_dir_all(&output).map_err(SetupError::io("remove", &output))?;
        step.finish("built");
        Ok(vec![PathBuf::from(MODULE)])
    })?;
    Ok(folder.join(MODULE))
}
