// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Packages into a folder, without root and without running anything of theirs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::progress::Step;
use crate::{Result, SetupError, process};

/// What no program reads.
const NEVER_NEEDED: &[&str] = &[
    "./usr/share/bug/*",
    "./usr/share/doc/*",
    "./usr/share/doc-base/*",
    "./usr/share/info/*",
    "./usr/share/lintian/*",
    "./usr/share/locale/*",
    "./usr/share/man/*",
];

/// Unpacks `packages` into `folder`, without what no program reads and the paths that `excluded` names as patterns of tar.
pub(crate) fn unpack(
    packages: &[PathBuf],
    folder: &Path,
    excluded: &[&str],
    step: &Step,
) -> Result<()> {
    let excluded: Vec<&str> = NEVER_NEEDED.iter().chain(excluded).copied().collect();
    unpack_without(packages, folder, &excluded, step)
}

/// Unpacks everything that `packages` have.
pub(crate) fn unpack_whole(packages: &[PathBuf], folder: &Path, step: &Step) -> Result<()> {
    unpack_without(packages, folder, &[], step)
}

fn unpack_without(
    packages: &[PathBuf],
    folder: &Path,
    excluded: &[&str],
    step: &Step,
) -> Result<()> {
    fs::create_dir_all(folder).map_err(SetupError::io("create", folder))?;
    let next = AtomicUsize::new(0);
    let done = AtomicUsize::new(0);
    let work = || -> Result<()> {
        while let Some(package) = packages.get(next.fetch_add(1, Ordering::Relaxed)) {
            unpack_one(package, folder, excluded)?;
            step.set_position(done.fetch_add(1, Ordering::Relaxed) as u64 + 1);
        }
        Ok(())
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| {
            worker
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })
}

fn unpack_one(package: &Path, folder: &Path, excluded: &[&str]) -> Result<()> {
    let mut reader = Command::new("dpkg-deb");
    reader.arg("--fsys-tarfile").arg(package);
    let mut tar = Command::new("tar");
    tar.arg("--extract").arg("--directory").arg(folder);
    // A pattern's star stands for one name, so that it does not reach into folders of the same name further below.
    tar.args([
        "--no-wildcards-match-slash",
        "--keep-directory-symlink",
        "--no-same-owner",
        "--no-same-permissions",
    ]);
    for pattern in excluded {
        tar.arg(format!("--exclude={pattern}"));
    }
    let what = format!("unpack {}", package.display());
    process::pipeline(&what, &mut [reader, tar])
}
