// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What every Linux program expects to be mounted.
//!
//! Where the guest's image has files in a folder that gets a tmpfs, the image's folder stays in its place: a hermetic command may
//! have been given files below `/tmp` or `/dev/shm`, and its working directory may be there.

use std::ffi::CStr;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context, Result};
use hmm_control::plan::WHOLE_PROC;
use rustix::fs::{CWD, Mode};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MoveMountFlags, OpenTreeFlags, mount, mount_bind, move_mount, open_tree,
};

/// A file system without a device below it.
struct Mount {
    kind: &'static str,
    target: &'static str,
    options: &'static CStr,
    /// Whether a kernel may be without it.
    optional: bool,
}

impl Mount {
    /// The image's folder, detached, if there are files in it that a mount would hide.
    fn of_image(&self) -> Result<Option<OwnedFd>> {
        if self.kind != TMPFS || !has_entries(self.target) {
            return Ok(None);
        }
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        open_tree(CWD, self.target, flags)
            .map(Some)
            .with_context(|| format!("cannot keep the image's {}", self.target))
    }

    /// Mounts it, or the image's folder in its place.
    fn mount(&self, of_image: Option<&OwnedFd>) -> rustix::io::Result<()> {
        match of_image {
            Some(folder) => {
                let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
                move_mount(folder, "", CWD, self.target, flags)?;
                rustix::fs::chmod(self.target, Mode::from_raw_mode(SHARED_MODE))
            }
            None => mount(
                self.kind,
                self.target,
                self.kind,
                MountFlags::empty(),
                self.options,
            ),
        }
    }
}

fn has_entries(folder: &str) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some())
}

const TMPFS: &str = "tmpfs";
/// The mode of a folder in which every user makes files.
const SHARED_MODE: u32 = 0o1777;

const BASE: [Mount; 10] = [
    needed("devtmpfs", "/dev", c"mode=0755"),
    needed("proc", "/proc", c""),
    needed("sysfs", "/sys", c""),
    needed("devpts", "/dev/pts", c"mode=0620,gid=5,ptmxmode=0666"),
    needed(TMPFS, "/dev/shm", c"mode=1777"),
    needed(TMPFS, "/tmp", c"mode=1777"),
    optional("debugfs", "/sys/kernel/debug"),
    optional("tracefs", "/sys/kernel/tracing"),
    optional("securityfs", "/sys/kernel/security"),
    optional("cgroup2", "/sys/fs/cgroup"),
];

const fn needed(kind: &'static str, target: &'static str, options: &'static CStr) -> Mount {
    Mount {
        kind,
        target,
        options,
        optional: false,
    }
}

const fn optional(kind: &'static str, target: &'static str) -> Mount {
    Mount {
        kind,
        target,
        options: c"",
        optional: true,
    }
}

/// Mounts what the guest's image lacks.
pub(crate) fn base() -> Result<()> {
    // Mounts on /dev hide what the image has below it.
    let of_image = BASE
        .iter()
        .map(Mount::of_image)
        .collect::<Result<Vec<_>>>()?;
    for (entry, of_image) in BASE.iter().zip(&of_image) {
        if entry.optional && !Path::new(entry.target).exists() {
            // The kernel makes the folder when it has the file system.
            continue;
        }
        fs::create_dir_all(entry.target)
            .with_context(|| format!("cannot make {}", entry.target))?;
        match entry.mount(of_image.as_ref()) {
            Ok(()) => {}
            Err(Errno::NODEV) if entry.optional => {}
            // The kernel has mounted it already.
            Err(Errno::BUSY) => {}
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("cannot mount {} on {}", entry.kind, entry.target));
            }
        }
    }
    for (link, target) in [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
    ] {
        std::os::unix::fs::symlink(target, link).with_context(|| format!("cannot make {link}"))?;
    }
    fs::create_dir_all(WHOLE_PROC).with_context(|| format!("cannot make {WHOLE_PROC}"))?;
    mount_bind("/proc", WHOLE_PROC).with_context(|| format!("cannot bind {WHOLE_PROC}"))?;
    Ok(())
}
