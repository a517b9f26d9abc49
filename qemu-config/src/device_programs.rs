// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! C programs of this project that have code for the device in them, built with the compilers of the build root.

use std::path::{Path, PathBuf};

use crate::cache::KeyBuilder;
use crate::process;
use crate::sysroot::BuildRoot;
use crate::workshop::Workshop;
use crate::{Result, SetupError};

const VERSION: u32 = 1;
/// Where the sources are, in the repository and inside the build root.
const SOURCES: &str = "guest-driver/uapi";
const INSIDE: &str = "/build/uapi";
const OUTPUT_INSIDE: &str = "/build/output";
/// What the program is built of.
const FILES: [&str; 6] = [
    "c/build.sh",
    "c/device.ld",
    "c/virtio_hmm.h",
    "examples/structures/structures.h",
    "examples/structures/host.c",
    "examples/structures/device.c",
];

/// Finds or builds `examples/structures`, which is static.
pub(crate) fn structures(workshop: &Workshop) -> Result<PathBuf> {
    const NAME: &str = "structures";
    let sources = workshop.repository.join(SOURCES);
    let mut key = KeyBuilder::new(NAME, VERSION).key(&BuildRoot::key(workshop));
    for file in FILES {
        key = key.file(file, &sources.join(file))?;
    }
    let llvm = &workshop.pins.build_root.llvm;
    let key = key.text(llvm).finish();
    let folder = workshop.step(NAME, &key, |work| {
        let output = work.join("output");
        std::fs::create_dir(&output).map_err(SetupError::io("create", &output))?;
        let root = BuildRoot::get(workshop)?;
        let inside = |file: &str| Path::new(INSIDE).join(file);
        let program = Path::new(OUTPUT_INSIDE).join(NAME);
        let words = [
            inside("c/build.sh"),
            program,
            inside("examples/structures/host.c"),
            inside("examples/structures/device.c"),
        ];
        let mut command = (root.sandbox()?)
            .read(&sources, INSIDE)
            .write(&output, OUTPUT_INSIDE)
            .with("CLANG", &format!("clang-{llvm}"))
            .with("LLD", &format!("ld.lld-{llvm}"))
            .with("OBJCOPY", &format!("llvm-objcopy-{llvm}"))
            .with("NM", &format!("llvm-nm-{llvm}"))
            .program("sh", words)
            .into_command();
        let what = "build the program with code for the device";
        let step = workshop.progress.step(what, None);
        process::watch(what, &mut command, |line| step.detail(line))?;
        step.finish("built");
        Ok(vec![Path::new("output").join(NAME)])
    })?;
    Ok(folder.join("output").join(NAME))
}
