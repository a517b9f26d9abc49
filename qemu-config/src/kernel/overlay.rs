// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The kernel's own overlayfs, where the kernel has it as a module: the guest puts a layer of its own over the host's
//! files with it.
//!
//! Debian's package of all modules is larger than everything else that a guest needs together, and the source is there
//! anyway.

use std::fs;
use std::path::PathBuf;

use super::prepared;
use crate::cache::{Key, KeyBuilder};
use crate::process::strip_module;
use crate::workshop::Workshop;
use crate::{Result, SetupError, process};

/// The name of the step.
const STEP: &str = "overlay";
const VERSION: u32 = 1;
/// Where the module is built.
const FOLDER: &str = "fs/overlayfs";
const MODULE: &str = "overlay.ko";

/// What the module is made of.
fn key(workshop: &Workshop) -> Key {
    KeyBuilder::new(STEP, VERSION)
        .key(&prepared::key(workshop))
        .finish()
}

/// Finds or builds the module for the stock kernel.
pub(crate) fn overlay(workshop: &Workshop) -> Result<PathBuf> {
    let folder = workshop.step(STEP, &key(workshop), |work| {
        let output = work.join("output");
        fs::create_dir(&output).map_err(SetupError::io("create", &output))?;
        let mut make = prepared::tree(workshop)?.make_own_modules(FOLDER, &output)?;
        let what = "build the kernel's overlayfs";
        let step = workshop.progress.step(what, None);
        process::watch(what, &mut make, |line| step.detail(line))?;
        strip_module(&output.join(MODULE), &work.join(MODULE))?;
        fs::remove_dir_all(&output).map_err(SetupError::io("remove", &output))?;
        step.finish("built");
        Ok(vec![PathBuf::from(MODULE)])
    })?;
    Ok(folder.join(MODULE))
}
