// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The stock kernel's image.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cache::{Key, KeyBuilder};
use crate::environment::Kernel;
use crate::packages::{Closure, Request, unpack};
use crate::workshop::Workshop;
use crate::{Result, SetupError};

/// The name of the step.
pub(crate) const STEP: &str = "kernel";
const VERSION: u32 = 1;
const IMAGE: &str = "vmlinuz";

/// What the image is made of.
pub(crate) fn key(workshop: &Workshop) -> Key {
    let builder = KeyBuilder::new(STEP, VERSION).value(&workshop.pins.suites);
    builder.value(&workshop.pins.kernel).finish()
}

/// Finds or downloads the image.
pub(crate) fn image(workshop: &Workshop) -> Result<Kernel> {
    let pin = &workshop.pins.kernel;
    let folder = workshop.step(STEP, &key(workshop), |work| {
        let package = format!("linux-binary-{}", pin.release);
        let requests = [Request::pinned(&package, &pin.package_version)];
        let download = workshop.fetch(STEP, &requests, Closure::Alone)?;
        let step = workshop.progress.step("unpack kernel", Some(1));
        let unpacked = work.join("unpacked");
        unpack(&download.files, &unpacked, &[], &step)?;
        download.discard()?;
        let path = Path::new("usr/lib/modules").join(&pin.release).join(IMAGE);
        let from = unpacked.join(path);
        fs::rename(&from, work.join(IMAGE)).map_err(SetupError::io("take", &from))?;
        fs::remove_dir_all(&unpacked).map_err(SetupError::io("remove", &unpacked))?;
        step.finish(&pin.release);
        Ok(vec![PathBuf::from(IMAGE)])
    })?;
    Ok(Kernel {
        image: folder.join(IMAGE),
        release: pin.release.clone(),
        debug: false,
    })
}
