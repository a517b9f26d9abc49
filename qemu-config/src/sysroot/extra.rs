// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Packages that a test suite asks for, with all that they need to run, in a folder of their own. The build root stays as
//! it is: the debug kernel would be built again if a package were added to it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::build::LINKS;
use crate::cache::{Key, KeyBuilder};
use crate::packages::{Closure, Request, unpack};
use crate::workshop::Workshop;
use crate::{Result, SetupError};

const VERSION: u32 = 1;
/// The merged `/usr`, without which no program of the folder finds its loader.
const ALWAYS: &str = "base-files";

/// Stands for the package of the stock kernel's modules, without what it asks for to be installed.
const KERNEL: &str = "linux-modules";

/// What the folder is made of.
pub(crate) fn key(workshop: &Workshop, packages: &[String]) -> Key {
    KeyBuilder::new("packages", VERSION)
        .value(&workshop.pins.suites)
        .value(&packages)
        .value(&(packages.iter().any(|package| package == KERNEL)).then_some(&workshop.pins.kernel))
        .finish()
}

/// Finds or makes the folder for the suite `name`.
pub(crate) fn extra(workshop: &Workshop, name: &str, packages: &[String]) -> Result<PathBuf> {
    let step_name = format!("packages-{name}");
    workshop.step(&step_name, &key(workshop, packages), |work| {
        let requests: Vec<Request> = ([ALWAYS].into_iter())
            .chain(packages.iter().map(String::as_str))
            .filter(|package| *package != KERNEL)
            .map(Request::any)
            .collect();
        let download = workshop.fetch(&step_name, &requests, Closure::WithDependencies)?;
        let kernel = &workshop.pins.kernel;
        let modules = packages.iter().any(|package| package == KERNEL);
        let modules = match modules {
            true => Some(workshop.fetch(
                &format!("{step_name}-modules"),
                &[Request::pinned(
                    format!("linux-modules-{}", kernel.release),
                    &kernel.package_version,
                )],
                Closure::Alone,
            )?),
            false => None,
        };
        let count = download.files.len() as u64;
        let what = format!("unpack {step_name} ({count} packages)");
        let step = workshop.progress.step(&what, Some(count));
        unpack(&download.files, work, &[], &step)?;
        download.discard()?;
        if let Some(modules) = modules {
            unpack(&modules.files, work, &[], &step)?;
            modules.discard()?;
        }
        for (link, target) in LINKS {
            let link = work.join(link);
            if fs::symlink_metadata(&link).is_err() && link.with_file_name(target).exists() {
                symlink(target, &link).map_err(SetupError::io("link", &link))?;
            }
        }
        step.finish("unpacked");
        Ok(vec![Path::new("usr/lib/os-release").to_owned()])
    })
}
