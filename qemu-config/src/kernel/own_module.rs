// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Modules of the kernel's own, of which no distribution ships most: what the driver is compared with, what proves that the
//! checks see what they are there for, and what cases need.
//!
//! They are built outside of the kernel's source, so that every kernel gets them the same way, whatever its configuration
//! says.

use std::fs;
use std::path::{Path, PathBuf};

use super::{ModuleTree, Modules};
use crate::cache::KeyBuilder;
use crate::process::strip_module;
use crate::workshop::Workshop;
use crate::{Result, SetupError, process};

const VERSION: u32 = 1;

/// A module of the kernel's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnModule {
    /// `lib/test_hmm.c`: a driver of device-private memory whose device is the processor.
    TestHmm,
    /// `samples/kmemleak/kmemleak-test.c`: it leaks memory as soon as it is loaded.
    KmemleakTest,
    /// `drivers/block/loop.c`: what swap space in a guest without disks is made of.
    Loop,
}

impl OwnModule {
    /// The name of the step, and where the sources are below the kernel's. The first is the module's own.
    fn parts(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Self::TestHmm => ("test-hmm", &["lib/test_hmm.c", "lib/test_hmm_uapi.h"]),
            Self::KmemleakTest => ("kmemleak-test", &["samples/kmemleak/kmemleak-test.c"]),
            Self::Loop => ("loop", &["drivers/block/loop.c"]),
        }
    }
}

/// Finds or builds it for the kernel of `tree`.
pub(crate) fn own_module(
    module: OwnModule,
    workshop: &Workshop,
    tree: &ModuleTree,
) -> Result<PathBuf> {
    let (step_name, sources) = module.parts();
    let object = Path::new(sources[0]).with_extension("o");
    let object = Path::new(object.file_name().unwrap_or_default());
    let file = object.with_extension("ko");
    let key = KeyBuilder::new(step_name, VERSION)
        .key(&tree.key(workshop)?)
        .finish();
    let folder = workshop.step(step_name, &key, |work| {
        const FOLDER: &str = "module";
        let (inside, output) = (work.join(FOLDER), work.join("output"));
        for folder in [&inside, &output] {
            fs::create_dir(folder).map_err(SetupError::io("create", folder))?;
        }
        let source = tree.source(workshop)?;
        for file in sources.iter().map(|file| source.join(file)) {
            let name = file.file_name().unwrap_or_default();
            fs::copy(&file, inside.join(name)).map_err(SetupError::io("copy", &file))?;
        }
        let kbuild = inside.join("Kbuild");
        fs::write(&kbuild, format!("obj-m := {}\n", object.display()))
            .map_err(SetupError::io("write", &kbuild))?;
        let mut make = tree.make_modules(
            workshop,
            Modules {
                repository: work,
                folder: FOLDER,
                output: &output,
                variables: &[],
            },
        )?;
        let what = format!("build {step_name} for {}", tree.release(workshop));
        let step = workshop.progress.step(&what, None);
        process::watch(&what, &mut make, |line| step.detail(line))?;
        strip_module(&output.join(&file), &work.join(&file))?;
        for folder in [&inside, &output] {
            fs::remove_dir_all(folder).map_err(SetupError::io("remove", folder))?;
        }
        step.finish("built");
        Ok(vec![file.clone()])
    })?;
    Ok(folder.join(file))
}
