// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The system that packages are made in, and the one that they are installed in to see that they work.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::Sandbox;
use crate::cache::KeyBuilder;
use crate::packages::{Closure, Request, unpack, unpack_whole};
use crate::workshop::Workshop;
use crate::{Result, SetupError, process};

const VERSION: u32 = 1;

/// What makes packages and checks them.
const PACKAGING: &[&str] = &[
    "base-files",
    "bash",
    "coreutils",
    "dash",
    "debhelper",
    "debianutils",
    "dh-dkms",
    "diffutils",
    "dpkg-dev",
    "findutils",
    "gawk",
    "grep",
    "gzip",
    "hostname",
    "libc-bin",
    "libvirt-common",
    "libxml2-utils",
    "lintian",
    "make",
    "perl",
    "sed",
    "tar",
    "util-linux",
    "xz-utils",
];

/// What every Debian system has, what the driver's package needs, and what lets packages that expect more than one user be
/// installed where there is one.
const CLEAN: &[&str] = &[
    "base-files",
    "base-passwd",
    "bash",
    "bsdutils",
    "coreutils",
    "dash",
    "debconf",
    "debianutils",
    "diffutils",
    "dkms",
    "dpkg",
    "fakeroot",
    "findutils",
    "grep",
    "gzip",
    "hostname",
    "init-system-helpers",
    "libc-bin",
    "login",
    "mawk",
    "ncurses-base",
    "ncurses-bin",
    "perl-base",
    "sed",
    "sysvinit-utils",
    "tar",
    "util-linux",
];

/// Finds or makes the system that packages are made in. The scripts of its own packages have not been run.
pub(crate) fn packaging_root(workshop: &Workshop) -> Result<PathBuf> {
    const STEP: &str = "packaging-root";
    const LINKS: &[(&str, &str)] = &[
        ("usr/bin/sh", "dash"),
        ("usr/bin/awk", "gawk"),
        ("etc/dpkg/origins/default", "debian"),
    ];
    let key = KeyBuilder::new(STEP, VERSION)
        .value(&workshop.pins.suites)
        .value(&PACKAGING)
        .finish();
    workshop.step(STEP, &key, |work| {
        let download = workshop.fetch(STEP, &requests(PACKAGING), Closure::WithDependencies)?;
        let count = download.files.len() as u64;
        let what = format!("unpack {STEP} ({count} packages)");
        let step = workshop.progress.step(&what, Some(count));
        // lintian reads some of what no other program does.
        unpack_whole(&download.files, work, &step)?;
        download.discard()?;
        for (link, target) in LINKS {
            let link = work.join(link);
            if fs::symlink_metadata(&link).is_err() {
                symlink(target, &link).map_err(SetupError::io("link", &link))?;
            }
        }
        // The list of installed packages, without which some of dpkg's programs do nothing.
        let status = work.join("var/lib/dpkg/status");
        create(status.parent().unwrap_or(work))?;
        fs::write(&status, "").map_err(SetupError::io("write", &status))?;
        step.finish("unpacked");
        Ok(["usr/bin/lintian", "usr/bin/dh_dkms"]
            .map(PathBuf::from)
            .to_vec())
    })
}

/// Finds or makes a system with nothing but what Debian needs, installed by dpkg. Use a copy of it.
pub(crate) fn clean_root(workshop: &Workshop) -> Result<PathBuf> {
    const STEP: &str = "clean-root";
    /// Where the packages stand inside.
    const PACKAGES: &str = "/media";
    let key = KeyBuilder::new(STEP, VERSION)
        .value(&workshop.pins.suites)
        .value(&CLEAN)
        .finish();
    workshop.step(STEP, &key, |work| {
        let download = workshop.fetch(STEP, &requests(CLEAN), Closure::WithDependencies)?;
        let count = download.files.len() as u64;
        let step = (workshop.progress).step(&format!("install {STEP} ({count} packages)"), None);
        unpack(&download.files, work, &[], &step)?;
        for folder in ["info", "updates", "triggers"] {
            create(&work.join("var/lib/dpkg").join(folder))?;
        }
        let status = work.join("var/lib/dpkg/status");
        fs::write(&status, "").map_err(SetupError::io("write", &status))?;
        let awk = work.join("usr/bin/awk");
        symlink("mawk", &awk).map_err(SetupError::io("link", &awk))?;
        let packages = (download.files.first().and_then(|file| file.parent())).unwrap_or(work);
        // The first three make the users, the folders and the database that the others expect.
        for script in [
            "dpkg --force-depends --force-unsafe-io --install /media/base-passwd_*.deb /media/base-files_*.deb /media/dpkg_*.deb",
            "dpkg --force-depends --force-unsafe-io --unpack /media/*.deb",
            "dpkg --force-unsafe-io --configure --pending",
        ] {
            let sandbox = Sandbox::as_root(work)?
                .read(packages, PACKAGES)
                // Owners other than root are remembered and not set: there are none.
                .with("FAKEROOTDONTTRYCHOWN", "1");
            let mut command =
                (sandbox.program("fakeroot-sysv", ["sh", "-c", script])).into_command();
            process::watch("install a Debian system", &mut command, |line| {
                step.detail(line);
            })?;
        }
        download.discard()?;
        step.finish("installed");
        Ok(vec![PathBuf::from("usr/bin/dpkg"), PathBuf::from("etc/passwd")])
    })
}

fn requests(packages: &[&str]) -> Vec<Request> {
    packages.iter().copied().map(Request::any).collect()
}

fn create(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(SetupError::io("create", folder))
}
