// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The host's root folder in the guest: what is read comes from the host, what is written stays here.
//!
//! The guest's own `/dev`, `/proc`, `/sys` and `/run` cover the host's. A working directory that they would cover is shown to the
//! command that runs in it ([`uncover`]).

mod hard_links;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use hmm_control::HostRoot;
use hmm_control::plan::{PROGRAMS, WHOLE_PROC};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount, mount_bind, mount_bind_recursive};

/// The host's files as they are.
const LOWER: &str = "/hmm/host/lower";
/// What the guest writes, when it may write everywhere.
const UPPER: &str = "/hmm/host/upper";
/// The root folder for commands.
pub(crate) const ROOT: &str = "/hmm/host/root";
/// The same without the guest's own folders on top.
const UNCOVERED: &str = "/hmm/host/uncovered";
/// Folders of the host that the guest's own cover, but for a working directory.
const COVERED: [&str; 2] = ["/dev/shm", "/run"];

/// Mounts the host's root folder, with the guest's own system folders in place of the host's.
pub(crate) fn mount_all(tag: &str) -> Result<HostRoot> {
    for folder in [LOWER, UPPER, ROOT, UNCOVERED] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {folder}"))?;
    }
    mount(tag, LOWER, "virtiofs", MountFlags::RDONLY, None)
        .context("cannot mount the host's root folder")?;
    let kind = match overlay() {
        Ok(()) => HostRoot::Overlay,
        Err(error) => {
            tracing::warn!("no overlay: {error:#}");
            mount_bind(LOWER, ROOT).context("cannot bind the host's root folder")?;
            for folder in ["tmp", "var/tmp"] {
                scratch(folder)?;
            }
            HostRoot::Scratch
        }
    };
    mount_bind(ROOT, UNCOVERED).context("cannot bind the host's root folder once more")?;
    let root = Path::new(ROOT);
    for folder in ["dev", "proc", "sys"] {
        let own = Path::new("/").join(folder);
        mount_bind_recursive(&own, root.join(folder))
            .with_context(|| format!("cannot bind {}", own.display()))?;
    }
    // What runs on the host does not run here.
    tmpfs(&root.join("run"), c"mode=0755")?;
    own_folders()?;
    Ok(kind)
}

/// Shows the guest's own folders below `/run`.
fn own_folders() -> Result<()> {
    for folder in [PROGRAMS, WHOLE_PROC] {
        let place = Path::new(ROOT).join(folder.trim_start_matches('/'));
        fs::create_dir_all(&place).with_context(|| format!("cannot make {folder}"))?;
        mount_bind(folder, &place).with_context(|| format!("cannot bind {folder}"))?;
    }
    Ok(())
}

/// Shows a working directory of the host that the guest's own folders cover. The caller has a mount namespace of its own, so
/// that other commands do not see it.
pub(crate) fn uncover(cwd: &Path) -> Result<()> {
    if !COVERED.iter().any(|covered| cwd.starts_with(covered)) {
        return Ok(());
    }
    let below_root = cwd.strip_prefix("/").unwrap_or(cwd);
    let (source, target) = (
        Path::new(UNCOVERED).join(below_root),
        Path::new(ROOT).join(below_root),
    );
    if !source.is_dir() {
        // The change to it says why it cannot be used.
        return Ok(());
    }
    fs::create_dir_all(&target)
        .and_then(|()| Ok(mount_bind(&source, &target)?))
        .with_context(|| format!("cannot show the host's {}", cwd.display()))?;
    if Path::new(PROGRAMS).starts_with(cwd) {
        own_folders()?;
    }
    Ok(())
}

/// Puts a writable layer over the host's files.
///
/// With `redirect_dir` a folder of the host can be renamed; without it rename() fails with EXDEV. With `index` the names of one
/// file of the host stay names of one file once it is written to.
fn overlay() -> Result<()> {
    tmpfs(Path::new(UPPER), c"mode=0755,size=75%")?;
    let (files, work) = (format!("{UPPER}/files"), format!("{UPPER}/work"));
    fs::create_dir(&files).context("cannot make the upper folder")?;
    fs::create_dir(&work).context("cannot make the work folder")?;
    let options =
        format!("lowerdir={LOWER},upperdir={files},workdir={work},redirect_dir=on,index=on");
    let options = std::ffi::CString::new(options).context("options with a zero byte")?;
    match mount(
        "overlay",
        ROOT,
        "overlay",
        MountFlags::empty(),
        options.as_c_str(),
    ) {
        Err(Errno::NODEV) => anyhow::bail!("the kernel has no overlayfs"),
        result => result.context("cannot mount the overlay")?,
    }
    if let Err(error) = hard_links::keep(Path::new(LOWER), Path::new(&work).join("index")) {
        tracing::warn!("hard links of the host come apart when they are written to: {error:#}");
    }
    Ok(())
}

/// Makes one folder of the host writable: what the host has in it stays to be seen.
fn scratch(folder: &str) -> Result<()> {
    let (source, target) = (Path::new(LOWER).join(folder), Path::new(ROOT).join(folder));
    if !source.is_dir() {
        return Ok(());
    }
    tmpfs(&target, c"mode=1777")?;
    for entry in fs::read_dir(&source).with_context(|| format!("cannot read {folder}"))? {
        let entry = entry?;
        let place = target.join(entry.file_name());
        // An entry that went meanwhile, or that cannot be shown, is left out.
        if let Err(error) = show(&entry.path(), &place) {
            tracing::warn!("{}: {error:#}", place.display());
        }
    }
    Ok(())
}

fn show(source: &PathBuf, place: &PathBuf) -> Result<()> {
    let kind = fs::symlink_metadata(source)?.file_type();
    if kind.is_symlink() {
        return Ok(symlink(fs::read_link(source)?, place)?);
    }
    if kind.is_dir() {
        fs::create_dir(place)?;
    } else {
        fs::File::create(place)?;
    }
    Ok(mount_bind(source, place)?)
}

fn tmpfs(target: &Path, options: &std::ffi::CStr) -> Result<()> {
    mount("tmpfs", target, "tmpfs", MountFlags::empty(), options)
        .with_context(|| format!("cannot mount a tmpfs on {}", target.display()))
}
