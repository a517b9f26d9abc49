// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a complete step holds, so that a later run notices when it does not hold it any more.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::key::{Key, sha256_of_file};
use crate::{Result, SetupError};

const FILE_NAME: &str = "manifest.json";

#[derive(Serialize, Deserialize)]
pub(super) struct Manifest {
    step: String,
    key: String,
    files: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    path: PathBuf,
    bytes: u64,
    sha256: String,
}

/// How a folder differs from what was written down when its step was complete.
#[derive(Debug, thiserror::Error)]
pub(super) enum Damage {
    /// A file of the step is missing, or cannot be read.
    #[error("{}: {source}", file.display())]
    Unreadable {
        /// Its path in the folder.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What was written down cannot be understood.
    #[error("{FILE_NAME}: {0}")]
    Malformed(serde_json::Error),
    /// The folder holds what was made from other inputs.
    #[error("{FILE_NAME} is about another step")]
    OtherStep,
    /// A file is longer or shorter than it was.
    #[error("{} had {expected} bytes and has {found}", file.display())]
    Size {
        /// Its path in the folder.
        file: PathBuf,
        /// Its length when the step was complete.
        expected: u64,
        /// Its length now.
        found: u64,
    },
    /// A file has other contents than it had.
    #[error("{} has changed since it was made", .0.display())]
    Contents(PathBuf),
    /// The contents of a file could not be compared.
    #[error(transparent)]
    Hash(#[from] SetupError),
}

impl Manifest {
    /// Describes `files` of `folder` in a file there. It is the last file to be written.
    pub(super) fn write(folder: &Path, step: &str, key: &Key, files: &[PathBuf]) -> Result<()> {
        let mut entries = Vec::with_capacity(files.len());
        for file in files {
            let path = folder.join(file);
            let metadata = fs::metadata(&path).map_err(SetupError::io("find", &path))?;
            entries.push(Entry {
                path: file.clone(),
                bytes: metadata.len(),
                sha256: sha256_of_file(&path)?,
            });
        }
        let manifest = Self {
            step: step.to_owned(),
            key: key.hex().to_owned(),
            files: entries,
        };
        let path = folder.join(FILE_NAME);
        let text = serde_json::to_string_pretty(&manifest)
            .map_err(|error| SetupError::invalid(&path, error.to_string()))?;
        fs::write(&path, text).map_err(SetupError::io("write", &path))
    }

    /// Notes that the step is in use. A cache that cannot be written to is as good as one that can.
    pub(super) fn touch(folder: &Path) {
        if let Ok(file) = fs::OpenOptions::new()
            .append(true)
            .open(folder.join(FILE_NAME))
        {
            let _ = file.set_modified(SystemTime::now());
        }
    }

    /// When the step was used last; `None` when the folder is no step.
    pub(super) fn last_used(folder: &Path) -> Option<SystemTime> {
        fs::metadata(folder.join(FILE_NAME)).ok()?.modified().ok()
    }

    /// Compares the folder with what was written down.
    pub(super) fn verify(folder: &Path, key: &Key) -> Result<(), Damage> {
        let unreadable = |file: &Path| {
            let file = file.to_owned();
            move |source| Damage::Unreadable { file, source }
        };
        let text =
            fs::read_to_string(folder.join(FILE_NAME)).map_err(unreadable(Path::new(FILE_NAME)))?;
        let manifest: Self = serde_json::from_str(&text).map_err(Damage::Malformed)?;
        if manifest.key != key.hex() {
            return Err(Damage::OtherStep);
        }
        for entry in manifest.files {
            let path = folder.join(&entry.path);
            let found = fs::metadata(&path).map_err(unreadable(&entry.path))?.len();
            if found != entry.bytes {
                return Err(Damage::Size {
                    file: entry.path,
                    expected: entry.bytes,
                    found,
                });
            }
            if sha256_of_file(&path)? != entry.sha256 {
                return Err(Damage::Contents(entry.path));
            }
        }
        Ok(())
    }
}
