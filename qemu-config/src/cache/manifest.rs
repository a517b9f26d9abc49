// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a complete step holds, so that a later run notices when it does not hold it any more.

use std::fs;
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

    /// Compares the folder with what was written down. The error is a sentence for a person.
    pub(super) fn verify(folder: &Path, key: &Key) -> Result<(), String> {
        let path = folder.join(FILE_NAME);
        let text = fs::read_to_string(&path).map_err(|error| format!("{FILE_NAME}: {error}"))?;
        let manifest: Self =
            serde_json::from_str(&text).map_err(|error| format!("{FILE_NAME}: {error}"))?;
        if manifest.key != key.hex() {
            return Err(format!("{FILE_NAME} is about another step"));
        }
        for entry in &manifest.files {
            let path = folder.join(&entry.path);
            let name = entry.path.display();
            let metadata = fs::metadata(&path).map_err(|error| format!("{name}: {error}"))?;
            if metadata.len() != entry.bytes {
                let found = metadata.len();
                return Err(format!("{name} had {} bytes and has {found}", entry.bytes));
            }
            let found = sha256_of_file(&path).map_err(|error| error.to_string())?;
            if found != entry.sha256 {
                return Err(format!("{name} has changed since it was made"));
            }
        }
        Ok(())
    }
}
