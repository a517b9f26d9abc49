// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The build root: the compilers that built the stock kernel, entered with bubblewrap.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::Sandbox;
use crate::cache::{Key, KeyBuilder};
use crate::packages::{Closure, Request, unpack};
use crate::workshop::Workshop;
use crate::{Result, SetupError};

/// The name of the step.
pub(crate) const STEP: &str = "build-root";
const VERSION: u32 = 1;

/// Large parts of packages that no build of the kernel reads.
const EXCLUDED: &[&str] = &[
    // rust-src brings the compiler's own source and LLVM's beside the library's.
    "./usr/src/rustc-*/compiler/*",
    "./usr/src/rustc-*/src/*",
    // bindgen needs libclang, which brings what is linked into other tools.
    "./usr/lib/llvm-*/lib/*.a",
    "./usr/lib/llvm-*/include/*",
];

/// What the packages' own scripts would have made, had they been run.
pub(super) const LINKS: &[(&str, &str)] = &[
    ("usr/bin/sh", "dash"),
    ("usr/bin/awk", "gawk"),
    ("usr/bin/cc", "gcc"),
];

/// An unpacked build root.
pub(crate) struct BuildRoot {
    folder: PathBuf,
}

impl BuildRoot {
    /// What the build root is made of.
    pub(crate) fn key(workshop: &Workshop) -> Key {
        KeyBuilder::new(STEP, VERSION)
            .value(&workshop.pins.suites)
            .value(&workshop.pins.build_root)
            .value(&EXCLUDED)
            .finish()
    }

    /// Where it is.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Finds or makes it.
    pub(crate) fn get(workshop: &Workshop) -> Result<Self> {
        let pins = &workshop.pins.build_root;
        let folder = workshop.step(STEP, &Self::key(workshop), |work| {
            let requests: Vec<Request> = (pins.packages.iter())
                .map(|(package, version)| Request::pinned(package, version))
                .chain(pins.tools.iter().map(Request::any))
                .collect();
            let download = workshop.fetch(STEP, &requests, Closure::WithDependencies)?;
            let count = download.files.len() as u64;
            let what = format!("unpack {STEP} ({count} packages)");
            let step = workshop.progress.step(&what, Some(count));
            unpack(&download.files, work, EXCLUDED, &step)?;
            download.discard()?;
            for (link, target) in LINKS {
                let link = work.join(link);
                if fs::symlink_metadata(&link).is_err() {
                    symlink(target, &link).map_err(SetupError::io("link", &link))?;
                }
            }
            step.finish("unpacked");
            let files = [
                "usr/bin/rustc",
                "usr/bin/bindgen",
                "usr/bin/make",
                "usr/bin/sh",
            ];
            let compilers = [
                pins.compiler.clone(),
                format!("clang-{}", pins.llvm),
                format!("ld.lld-{}", pins.llvm),
            ];
            let compilers = compilers.map(|name| Path::new("usr/bin").join(name));
            Ok(files
                .map(PathBuf::from)
                .into_iter()
                .chain(compilers)
                .collect())
        })?;
        Ok(Self { folder })
    }

    /// Whether a program is installed in it.
    pub(crate) fn has(&self, program: &str) -> bool {
        self.folder.join("usr/bin").join(program).exists()
    }

    /// Begins a command inside.
    pub(crate) fn sandbox(&self) -> Result<Sandbox> {
        Sandbox::below(&self.folder, &["usr", "etc"])
    }
}
