// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Debian's source of the stock kernel.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cache::{Key, KeyBuilder};
use crate::packages::{Closure, Request};
use crate::workshop::Workshop;
use crate::{Result, SetupError, process};

/// The name of the step.
pub(crate) const STEP: &str = "kernel-source";
const VERSION: u32 = 1;
const FOLDER: &str = "source";

/// What no kernel for the guest and no module is built from, as patterns of tar below the source's root; a star stands
/// for slashes too. All `Kconfig` files and makefiles have to stay.
const EXCLUDED: &[&str] = &[
    "Documentation/*/*",
    "arch/[!x]*/*.[chS]",
    "arch/[!x]*/*.dts*",
    "arch/xtensa/*.[chS]",
    "drivers/accel/*.[ch]",
    "drivers/clk/*/*.[ch]",
    "drivers/gpu/*.[ch]",
    "drivers/hwmon/*.[ch]",
    "drivers/iio/*.[ch]",
    "drivers/infiniband/*.[ch]",
    "drivers/media/*.[ch]",
    "drivers/net/*/*.[ch]",
    "drivers/pinctrl/*/*.[ch]",
    "drivers/scsi/*.[ch]",
    "drivers/staging/*.[ch]",
    "drivers/usb/*.[ch]",
    "sound/*.[ch]",
    "tools/perf/*",
    "tools/testing/[!s]*/*",
    "tools/testing/selftests/[!m]*/*",
];

/// What the source is made of.
pub(crate) fn key(workshop: &Workshop) -> Key {
    let pin = &workshop.pins.kernel;
    KeyBuilder::new(STEP, VERSION)
        .value(&workshop.pins.suites)
        .text(&pin.source_package)
        .text(&pin.package_version)
        .value(&EXCLUDED)
        .finish()
}

/// Finds or downloads and unpacks it.
pub(super) fn source(workshop: &Workshop) -> Result<PathBuf> {
    let folder = workshop.step(STEP, &key(workshop), |work| {
        let pin = &workshop.pins.kernel;
        let requests = [Request::pinned(&pin.source_package, &pin.package_version)];
        let download = workshop.fetch(STEP, &requests, Closure::Alone)?;
        unpack(
            workshop,
            download.file(&pin.source_package)?,
            &work.join(FOLDER),
        )?;
        download.discard()?;
        let files = [
            "Makefile",
            "Kbuild",
            "lib/test_hmm.c",
            "mm/migrate_device.c",
        ];
        Ok(files.map(|file| Path::new(FOLDER).join(file)).to_vec())
    })?;
    Ok(folder.join(FOLDER))
}

fn unpack(workshop: &Workshop, package: &Path, folder: &Path) -> Result<()> {
    let name = &workshop.pins.kernel.source_package;
    let step = workshop.progress.step("unpack the kernel source", None);
    fs::create_dir(folder).map_err(SetupError::io("create", folder))?;
    let mut reader = Command::new("dpkg-deb");
    reader.arg("--fsys-tarfile").arg(package);
    let mut archive = Command::new("tar");
    archive.args(["--extract", "--to-stdout"]);
    archive.arg(format!("./usr/src/{name}.tar.xz"));
    let mut expander = Command::new("xz");
    expander.args(["--decompress", "--stdout"]);
    let mut writer = Command::new("tar");
    writer.arg("--extract").arg("--directory").arg(folder);
    writer.args(["--strip-components=1", "--no-same-owner"]);
    for pattern in EXCLUDED {
        writer.arg(format!("--exclude={name}/{pattern}"));
    }
    let mut commands = [reader, archive, expander, writer];
    process::pipeline("unpack the kernel source", &mut commands)?;
    step.finish("unpacked");
    Ok(())
}
