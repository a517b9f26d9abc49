// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The kernel that the guest boots, as far as modules for it are concerned.

use std::path::PathBuf;
use std::process::Command;

use super::debug::DebugKernel;
use super::users_tree::UsersTree;
use super::{Modules, OwnModule, image, overlay, own_module, prepared, source};
use crate::cache::Key;
use crate::environment::{Kernel, KernelChoice};
use crate::workshop::Workshop;
use crate::{Result, SetupError};

/// The kernel that modules are for. Nothing is made before it is needed.
pub(crate) enum ModuleTree {
    Stock,
    Debug(DebugKernel),
    Users(UsersTree),
}

impl ModuleTree {
    /// Looks at the user's tree if one was chosen.
    pub(crate) fn open(choice: &KernelChoice) -> Result<Self> {
        match choice {
            KernelChoice::Stock => Ok(Self::Stock),
            KernelChoice::Debug => Ok(Self::Debug(DebugKernel::Plain)),
            KernelChoice::Fixed => Ok(Self::Debug(DebugKernel::Fixed)),
            KernelChoice::Tree(folder) => UsersTree::open(folder).map(Self::Users),
        }
    }

    /// The image and the release.
    pub(crate) fn kernel(&self, workshop: &Workshop) -> Result<Kernel> {
        match self {
            Self::Stock => image::image(workshop),
            Self::Debug(debug) => debug.kernel(workshop),
            Self::Users(tree) => Ok(tree.kernel()),
        }
    }

    /// Modules of the kernel itself that the guest loads before the driver.
    pub(crate) fn helper_modules(&self, workshop: &Workshop) -> Result<Vec<PathBuf>> {
        Ok(match self {
            Self::Stock => vec![
                overlay::overlay(workshop)?,
                own_module(OwnModule::Loop, workshop, self)?,
            ],
            Self::Debug(_) => Vec::new(),
            Self::Users(tree) => tree.helper_modules(),
        })
    }

    /// Whether probes can be put into its functions.
    pub(crate) fn has_probes(&self) -> bool {
        match self {
            Self::Stock | Self::Debug(_) => true,
            Self::Users(tree) => tree.has_probes(),
        }
    }

    /// A `make` of modules. What the build needs is made first.
    pub(crate) fn make_modules(
        &self,
        workshop: &Workshop,
        modules: Modules<'_>,
    ) -> Result<Command> {
        match self {
            Self::Stock => prepared::tree(workshop)?.make_modules(modules),
            Self::Debug(debug) => debug.tree(workshop)?.make_modules(modules),
            Self::Users(tree) => tree.make_modules(workshop, modules),
        }
    }

    /// An error of the driver's build, with what the kernel may have to do with it.
    pub(crate) fn explain(&self, error: SetupError, workshop: &Workshop) -> SetupError {
        match self {
            Self::Stock | Self::Debug(_) => error,
            Self::Users(tree) => tree.explain(error, &workshop.pins.kernel.release),
        }
    }

    /// The kernel's source.
    pub(super) fn source(&self, workshop: &Workshop) -> Result<PathBuf> {
        match self {
            Self::Stock => source::source(workshop),
            Self::Debug(debug) => debug.source(workshop),
            Self::Users(tree) => Ok(tree.source()),
        }
    }

    /// What the kernel's source is made of: one key for all kernels that are built from the same source.
    pub(super) fn source_key(&self, workshop: &Workshop) -> Result<Key> {
        match self {
            Self::Stock => Ok(source::key(workshop)),
            Self::Debug(debug) => debug.source_key(workshop),
            Self::Users(tree) => tree.key(),
        }
    }

    /// What the tree is made of.
    pub(crate) fn key(&self, workshop: &Workshop) -> Result<Key> {
        match self {
            Self::Stock => Ok(prepared::key(workshop)),
            Self::Debug(debug) => debug.key(workshop),
            Self::Users(tree) => tree.key(),
        }
    }

    /// What `uname -r` says in the guest.
    pub(crate) fn release(&self, workshop: &Workshop) -> String {
        match self {
            Self::Stock => workshop.pins.kernel.release.clone(),
            Self::Debug(debug) => debug.release(workshop),
            Self::Users(tree) => tree.release().to_owned(),
        }
    }
}
