// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A memory cgroup of the case's own.

use crate::cases::case::skip;
use anyhow::{Context, Result};
use rustix::mount::MountFlags;
use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = "/sys/fs/cgroup";

/// A cgroup that counts memory.
#[derive(Debug)]
pub(in crate::cases) struct MemoryCgroup {
    folder: PathBuf,
}

impl MemoryCgroup {
    /// An empty cgroup.
    pub(in crate::cases) fn new(name: &str) -> Result<Self> {
        let root = Path::new(ROOT);
        if !root.join("cgroup.controllers").exists() {
            rustix::mount::mount("cgroup2", root, "cgroup2", MountFlags::empty(), None)
                .context("cannot mount the cgroups")?;
        }
        let controllers = fs::read_to_string(root.join("cgroup.controllers"))?;
        if !controllers.split_whitespace().any(|name| name == "memory") {
            return Err(skip("the kernel has no memory cgroups"));
        }
        fs::write(root.join("cgroup.subtree_control"), "+memory")
            .context("cannot switch on the memory controller")?;
        let folder = root.join(format!("hmm-{name}-{}", std::process::id()));
        fs::create_dir(&folder).context("cannot make a cgroup")?;
        Ok(Self { folder })
    }

    /// Moves the calling process into the cgroup: what it allocates from now on is charged there.
    pub(in crate::cases) fn enter(&self) -> Result<()> {
        fs::write(self.folder.join("cgroup.procs"), "0").context("cannot enter the cgroup")
    }

    /// `memory.current`, bytes.
    pub(in crate::cases) fn current(&self) -> Result<u64> {
        let text = fs::read_to_string(self.folder.join("memory.current"))?;
        text.trim().parse().context("memory.current is no number")
    }

    /// Sets `memory.max`, bytes.
    pub(in crate::cases) fn limit(&self, bytes: u64) -> Result<()> {
        fs::write(self.folder.join("memory.max"), bytes.to_string())
            .context("cannot set memory.max")
    }

    /// A counter of `memory.events`, for example `oom_kill`.
    pub(in crate::cases) fn events(&self, name: &str) -> Result<u64> {
        let text = fs::read_to_string(self.folder.join("memory.events"))?;
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
            .with_context(|| format!("memory.events has no {name}"))?
            .parse()
            .context("memory.events has no number")
    }
}

impl Drop for MemoryCgroup {
    fn drop(&mut self) {
        // A cgroup with processes in it stays; the guest does not live long.
        let _ = fs::remove_dir(&self.folder);
    }
}
