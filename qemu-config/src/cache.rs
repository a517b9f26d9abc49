// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The folder of finished steps.
//!
//! A step lives in `NAME/KEY`, where KEY is the hash of everything that it is made of. It is made in a sibling
//! `NAME/KEY.work-RANDOM` and renamed when it is complete, so that a folder without the suffix is always whole. A lock
//! file `NAME/KEY.lock` lets one process make a step while others wait; the system releases it when its holder dies, and
//! whoever takes it next removes what the holder left. A step that no run has used for a month is removed when another of
//! the same name is made.

mod key;
mod lock;
mod manifest;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) use key::{Key, KeyBuilder, sha256_of_file};
pub(crate) use lock::Lock;
use manifest::Manifest;

use crate::{Progress, Result, SetupError};

const WORK_SUFFIX: &str = ".work-";
/// How long a step is kept that no run uses.
const UNUSED: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The cache.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// Opens the cache in `root`, or `virtio-hmm` in the user's cache folder.
    ///
    /// # Errors
    /// When the user's cache folder is not known or cannot be made.
    pub fn open(root: Option<PathBuf>) -> Result<Self> {
        let root = match root {
            Some(root) => root,
            None => default_root()?,
        };
        fs::create_dir_all(&root).map_err(SetupError::io("create", &root))?;
        let root = fs::canonicalize(&root).map_err(SetupError::io("resolve", &root))?;
        Ok(Self { root })
    }

    /// The folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the step stands when it is complete.
    pub(crate) fn folder(&self, name: &str, key: &Key) -> PathBuf {
        self.root.join(name).join(key.short())
    }

    /// The complete step, when there is one whose files are as they were when it was made.
    pub(crate) fn find(&self, name: &str, key: &Key) -> Option<PathBuf> {
        let folder = self.folder(name, key);
        Manifest::verify(&folder, key).ok()?;
        Manifest::touch(&folder);
        Some(folder)
    }

    /// The complete step; `make` makes it in the folder that it is given when there is none, and returns the files
    /// that later runs verify, relative to that folder.
    ///
    /// # Errors
    /// Those of `make`, and of the file system.
    pub(crate) fn step(
        &self,
        name: &str,
        key: &Key,
        progress: &Progress,
        make: impl FnOnce(&Path) -> Result<Vec<PathBuf>>,
    ) -> Result<PathBuf> {
        if let Some(folder) = self.find(name, key) {
            return Ok(folder);
        }
        let folder = self.folder(name, key);
        let parent = self.root.join(name);
        fs::create_dir_all(&parent).map_err(SetupError::io("create", &parent))?;
        let _lock = Lock::take(&parent.join(format!("{}.lock", key.short())), || {
            progress.line(&format!(
                "waiting for another process that is making {name}"
            ));
        })?;
        remove_leftovers(&parent, key)?;
        match Manifest::verify(&folder, key) {
            Ok(()) => return Ok(folder),
            Err(damage) if folder.exists() => {
                progress.line(&format!("{}: {damage}; it is made again", folder.display()));
                // The name is freed in one step, so that no process finds a half-removed folder.
                let old = parent.join(format!("{}{WORK_SUFFIX}damaged", key.short()));
                fs::rename(&folder, &old).map_err(SetupError::io("rename", &folder))?;
                remove_tree(&old)?;
            }
            Err(_) => {}
        }
        let work = tempfile::Builder::new()
            .prefix(&format!("{}{WORK_SUFFIX}", key.short()))
            .tempdir_in(&parent)
            .map_err(SetupError::io("create a folder in", &parent))?;
        let files = make(work.path())?;
        Manifest::write(work.path(), name, key, &files)?;
        let work = work.keep();
        fs::rename(&work, &folder).map_err(SetupError::io("rename", &work))?;
        remove_unused(&parent)?;
        Ok(folder)
    }
}

/// Removes what interrupted runs left of one step. The caller holds the step's lock.
fn remove_leftovers(parent: &Path, key: &Key) -> Result<()> {
    let prefix = format!("{}{WORK_SUFFIX}", key.short());
    for entry in fs::read_dir(parent).map_err(SetupError::io("list", parent))? {
        let entry = entry.map_err(SetupError::io("list", parent))?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            remove_tree(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes the steps of other pins and sources that no run has used for long.
fn remove_unused(parent: &Path) -> Result<()> {
    for entry in fs::read_dir(parent).map_err(SetupError::io("list", parent))? {
        let folder = (entry.map_err(SetupError::io("list", parent))?).path();
        let name = folder
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let unused = (Manifest::last_used(&folder))
            .and_then(|used| used.elapsed().ok())
            .is_some_and(|age| age > UNUSED);
        if !unused || name.contains('.') {
            continue;
        }
        if let Some(_lock) = Lock::try_take(&parent.join(format!("{name}.lock")))? {
            let old = parent.join(format!("{name}{WORK_SUFFIX}unused"));
            fs::rename(&folder, &old).map_err(SetupError::io("rename", &folder))?;
            remove_tree(&old)?;
        }
    }
    Ok(())
}

fn remove_tree(folder: &Path) -> Result<()> {
    // A program that outlived an interrupted run by a moment may still add files; a few tries outlast it.
    const TRIES: usize = 5;
    let mut outcome = fs::remove_dir_all(folder);
    for _ in 1..TRIES {
        match &outcome {
            Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => {
                std::thread::sleep(Duration::from_millis(200));
                outcome = fs::remove_dir_all(folder);
            }
            _ => break,
        }
    }
    outcome.map_err(SetupError::io("remove", folder))
}

fn default_root() -> Result<PathBuf> {
    let absolute =
        |name: &str| (std::env::var_os(name).map(PathBuf::from)).filter(|path| path.is_absolute());
    absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .map(|base| base.join("virtio-hmm"))
        .ok_or_else(|| {
            SetupError::invalid(
                Path::new("$XDG_CACHE_HOME"),
                "expected an absolute path there or in $HOME for the cache, found neither",
            )
        })
}

#[cfg(test)]
mod tests;
