// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What every Linux program expects to be mounted.

use std::ffi::CStr;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};

/// A file system without a device below it.
struct Mount {
    kind: &'static str,
    target: &'static str,
    options: &'static CStr,
    /// Whether a kernel may be without it.
    optional: bool,
}

const BASE: [Mount; 10] = [
    needed("devtmpfs", "/dev", c"mode=0755"),
    needed("proc", "/proc", c""),
    needed("sysfs", "/sys", c""),
    needed("devpts", "/dev/pts", c"mode=0620,gid=5,ptmxmode=0666"),
    needed("tmpfs", "/dev/shm", c"mode=1777"),
    needed("tmpfs", "/tmp", c"mode=1777"),
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
    for entry in BASE {
        if entry.optional && !Path::new(entry.target).exists() {
            // The kernel makes the folder when it has the file system.
            continue;
        }
        fs::create_dir_all(entry.target)
            .with_context(|| format!("cannot make {}", entry.target))?;
        match mount(
            entry.kind,
            entry.target,
            entry.kind,
            MountFlags::empty(),
            entry.options,
        ) {
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
    Ok(())
}
