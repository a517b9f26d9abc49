// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a guest is made of: the environment and the project's own programs.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Environment, Result, SetupError};

/// The environment variable that names the file with the artifacts.
pub const ARTIFACTS_VARIABLE: &str = "HMM_ARTIFACTS";

/// Everything that a guest is made of, ready to be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifacts {
    /// QEMU, virtiofsd, the kernel and the driver.
    pub environment: Environment,
    /// `hmm-agent`, static: the guest's init.
    pub agent: PathBuf,
    /// `hmmctl`, static.
    pub hmmctl: PathBuf,
    /// `vhost-user-hmm`: the device process.
    pub backend: PathBuf,
    /// The folder in which each boot gets a folder of its own.
    pub runs: PathBuf,
    /// A program with functions that the device runs, static: see [`crate::device_program`]. Only the tests have it.
    pub device_program: Option<PathBuf>,
    /// What proves that the checks of a debug kernel see what they are there for; only the tests have it.
    pub controls: Option<Controls>,
    /// An unpacked system with programs of others that guests run: Python and redis. Only the tests have it.
    #[serde(default)]
    pub programs: Option<PathBuf>,
}

/// Modules of the kernel's own that do wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Controls {
    /// See [`crate::OwnModule::TestHmm`]: it evicts pages of processes that exit at that moment.
    pub test_hmm: PathBuf,
    /// See [`crate::OwnModule::KmemleakTest`].
    pub kmemleak_test: PathBuf,
}

impl Artifacts {
    /// Reads the file that [`Artifacts::save`] wrote.
    ///
    /// # Errors
    /// When it cannot be read or is not such a file.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read(path).map_err(|source| SetupError::Io {
            action: "read",
            path: path.to_owned(),
            source,
        })?;
        serde_json::from_slice(&text).map_err(|error| SetupError::Invalid {
            path: path.to_owned(),
            reason: format!("expected the list of artifacts: {error}"),
        })
    }

    /// Reads the file that [`ARTIFACTS_VARIABLE`] names; `None` when the variable is not set.
    ///
    /// # Errors
    /// As [`Artifacts::load`].
    pub fn from_variable() -> Result<Option<Self>> {
        std::env::var_os(ARTIFACTS_VARIABLE)
            .map(|path| Self::load(Path::new(&path)))
            .transpose()
    }

    /// Writes the list, in place of an older one at once.
    ///
    /// # Errors
    /// When the folder cannot be written to.
    pub fn save(&self, path: &Path) -> Result<()> {
        let failed = |action, source| SetupError::Io {
            action,
            path: path.to_owned(),
            source,
        };
        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(|error| failed("create the folder of", error))?;
        let file =
            tempfile::NamedTempFile::new_in(folder).map_err(|error| failed("create", error))?;
        serde_json::to_writer_pretty(&file, self).map_err(|error| failed("write", error.into()))?;
        file.persist(path)
            .map_err(|error| failed("rename to", error.error))?;
        Ok(())
    }
}
