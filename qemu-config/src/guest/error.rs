// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Why a guest did not do what it was asked, and the exit code that says so.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::SetupError;

/// What went wrong, and where its logs are.
#[derive(Debug)]
pub struct GuestError {
    kind: GuestErrorKind,
    logs: Option<PathBuf>,
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GuestErrorKind {
    /// The machine at hand lacks something.
    #[error("{0}")]
    Environment(String),
    /// What was asked for cannot be.
    #[error("{0}")]
    Usage(String),
    /// It took longer than it was allowed to.
    #[error("{what} did not end within {} s", limit.as_secs())]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        limit: Duration,
    },
    /// QEMU, the device process, the guest's kernel or its init failed.
    #[error("{0}")]
    Infrastructure(String),
    /// A person or another program ended it.
    #[error("interrupted")]
    Interrupted,
}

impl GuestError {
    pub(crate) fn new(kind: GuestErrorKind) -> Self {
        Self { kind, logs: None }
    }

    pub(crate) fn with_logs(mut self, folder: PathBuf) -> Self {
        self.logs = Some(folder);
        self
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> &GuestErrorKind {
        &self.kind
    }

    /// The folder with the logs of this boot, when it got so far.
    #[must_use]
    pub fn logs(&self) -> Option<&PathBuf> {
        self.logs.as_ref()
    }

    /// The exit code of a tool that ends because of this.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self.kind {
            GuestErrorKind::Usage(_) => 2,
            GuestErrorKind::Environment(_) => 3,
            GuestErrorKind::Timeout { .. } => 124,
            GuestErrorKind::Infrastructure(_) => 125,
            GuestErrorKind::Interrupted => 130,
        }
    }
}

impl fmt::Display for GuestError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.kind)?;
        if let Some(folder) = &self.logs {
            write!(formatter, "\nlogs: {}", folder.display())?;
        }
        Ok(())
    }
}

impl std::error::Error for GuestError {}

impl From<GuestErrorKind> for GuestError {
    fn from(kind: GuestErrorKind) -> Self {
        Self::new(kind)
    }
}

impl From<SetupError> for GuestError {
    fn from(error: SetupError) -> Self {
        GuestErrorKind::Environment(error.to_string()).into()
    }
}

/// The result of something that a guest was asked to do.
pub type Result<T, E = GuestError> = std::result::Result<T, E>;

/// The short ways to the kinds that need a text.
pub(crate) fn environment(text: impl Into<String>) -> GuestError {
    GuestErrorKind::Environment(text.into()).into()
}

/// See [`environment`].
pub(crate) fn infrastructure(text: impl Into<String>) -> GuestError {
    GuestErrorKind::Infrastructure(text.into()).into()
}
