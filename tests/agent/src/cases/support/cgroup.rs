// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Cgroups of the case's own.

use crate::cases::case::skip;
use anyhow::{Context, Result};
use rustix::mount::MountFlags;
use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = "/sys/fs/cgroup";

/// A cgroup with one controller.
#[derive(Debug)]
struct Cgroup {
    folder: PathBuf,
}

impl Cgroup {
    /// An empty cgroup. Skips the case where the kernel lacks the controller.
    fn new(controller: &str, name: &str) -> Result<Self> {
        let root = Path::new(ROOT);
        if !root.join("cgroup.controllers").exists() {
            rustix::mount::mount("cgroup2", root, "cgroup2", MountFlags::empty(), None)
                .context("cannot mount the cgroups")?;
        }
        let controllers = fs::read_to_string(root.join("cgroup.controllers"))?;
        if !controllers
            .split_whitespace()
            .any(|name| name == controller)
        {
            return Err(skip(format!("the kernel has no {controller} cgroups")));
        }
        fs::write(
            root.join("cgroup.subtree_control"),
            format!("+{controller}"),
        )
        .with_context(|| format!("cannot switch on the {controller} controller"))?;
        let folder = root.join(format!("hmm-{name}-{}", std::process::id()));
        fs::create_dir(&folder).context("cannot make a cgroup")?;
        Ok(Self { folder })
    }

    fn enter(&self) -> Result<()> {
        fs::write(self.folder.join("cgroup.procs"), "0").context("cannot enter the cgroup")
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A cgroup with processes in it stays; the guest does not live long.
        let _ = fs::remove_dir(&self.folder);
    }
}

/// A cgroup whose processes may allocate memory on some nodes only.
#[derive(Debug)]
pub(in crate::cases) struct Cpuset(Cgroup);

impl Cpuset {
    /// An empty cgroup for these nodes.
    pub(in crate::cases) fn new(name: &str, nodes: &str) -> Result<Self> {
        let cgroup = Cgroup::new("cpuset", name)?;
        fs::write(cgroup.folder.join("cpuset.mems"), nodes).context("cannot set cpuset.mems")?;
        Ok(Self(cgroup))
    }

    /// Moves the calling process into the cgroup.
    pub(in crate::cases) fn enter(&self) -> Result<()> {
        self.0.enter()
    }
}

/// A cgroup that counts memory.
#[derive(Debug)]
pub(in crate::cases) struct MemoryCgroup(Cgroup);

impl MemoryCgroup {
    /// An empty cgroup.
    pub(in crate::cases) fn new(name: &str) -> Result<Self> {
        Cgroup::new("memory", name).map(Self)
    }

    /// Moves the calling process into the cgroup: what it allocates from now on is charged there.
    pub(in crate::cases) fn enter(&self) -> Result<()> {
        self.0.enter()
    }

    /// `memory.current`, bytes.
    pub(in crate::cases) fn current(&self) -> Result<u64> {
        let text = fs::read_to_string(self.0.folder.join("memory.current"))?;
        text.trim().parse().context("memory.current is no number")
    }

    /// Sets `memory.max`, bytes.
    pub(in crate::cases) fn limit(&self, bytes: u64) -> Result<()> {
        fs::write(self.0.folder.join("memory.max"), bytes.to_string())
            .context("cannot set memory.max")
    }

    /// A counter of `memory.events`, for example `oom_kill`.
    pub(in crate::cases) fn events(&self, name: &str) -> Result<u64> {
        let text = fs::read_to_string(self.0.folder.join("memory.events"))?;
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
            .with_context(|| format!("memory.events has no {name}"))?
            .parse()
            .context("memory.events has no number")
    }
}
