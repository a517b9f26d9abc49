// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What can go wrong before a guest runs.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use crate::kernel::SymbolDifference;

/// The result of a set-up step.
pub type Result<T, E = SetupError> = std::result::Result<T, E>;

/// Why the environment could not be made. Each message says what was expected, what was found and what to do.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A file operation failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried, as a verb: "read", "rename".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file of the project or of the user does not have the expected form.
    #[error("{}: {reason}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What was expected and what was found.
        reason: String,
    },
    /// A program could not be started.
    #[error("{what}: cannot start {program}")]
    Start {
        /// What the program was to do.
        what: String,
        /// The program.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// A program failed.
    #[error("{what} failed: {program} ended with {status}\n{}", output.trim_end())]
    Failed {
        /// What the program was to do.
        what: String,
        /// The program.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// Everything that it wrote.
        output: String,
    },
    /// The compiler or a lint refuses the driver's sources.
    #[error("{what} failed:\n{}", output.trim_end())]
    Driver {
        /// What was done with the sources.
        what: String,
        /// Everything that the tools said.
        output: String,
    },
    /// The host lacks programs and they could not be installed from here.
    #[error("this machine lacks {}; install with: {command}", missing.join(", "))]
    HostLacks {
        /// The packages.
        missing: Vec<String>,
        /// The command that installs them.
        command: String,
    },
    /// Bubblewrap is there and cannot do its work.
    #[error(
        "bubblewrap cannot enter a root folder of its own here: {problem}\n\
         A user who is not root needs user namespaces (sysctl kernel.unprivileged_userns_clone=1, or on Ubuntu \
         kernel.apparmor_restrict_unprivileged_userns=0); a container needs CAP_SYS_ADMIN (docker run --privileged)"
    )]
    Sandbox {
        /// What it said.
        problem: String,
    },
    /// Another part of the set-up failed; its error is the one to show.
    #[error("stopped because another part of the set-up failed")]
    Stopped,
    /// No Debian mirror is known.
    #[error(
        "no Debian mirror is known: this machine's apt configuration names none ({reason}). \
         Name one with --mirror URL or HMM_MIRROR=URL (the address that ends in /debian)"
    )]
    NoMirror {
        /// What was looked at.
        reason: String,
    },
    /// Something would have to be downloaded, and `--offline` was given.
    #[error(
        "--offline: the cache in {} does not have {what}. Run `cargo xtask setup` once with a network",
        cache.display()
    )]
    Offline {
        /// What is missing.
        what: String,
        /// The cache.
        cache: PathBuf,
    },
    /// The mirror does not have a pinned package any more.
    #[error(
        "the mirror {mirror} does not have {package} {wanted}, which the pins ask for. It has: {}. \
         Either copy qemu-config/pins.toml, change it to one of these and name the copy with --pins FILE or \
         HMM_PINS=FILE, or name a mirror that still has the old version with --mirror URL or HMM_MIRROR=URL",
        available_text(available)
    )]
    MissingPin {
        /// The mirror.
        mirror: String,
        /// The package.
        package: String,
        /// The version that the pins name.
        wanted: String,
        /// What the mirror has, ready to be read by a person.
        available: Vec<String>,
    },
    /// A downloaded file is not the one that the signed index names.
    #[error(
        "{}: expected SHA-256 {expected}, found {found}. Remove the file and try again",
        path.display()
    )]
    WrongHash {
        /// The file.
        path: PathBuf,
        /// The signed hash.
        expected: String,
        /// The hash of what is there.
        found: String,
    },
    /// The rebuilt Rust crates do not fit the stock kernel.
    #[error(
        "the rebuilt Rust crates do not fit the stock kernel {release}, so that a module built against them would not \
         load: {difference}\nCheck that [build_root] of the pins names the compilers that built the kernel"
    )]
    Symbols {
        /// The kernel.
        release: String,
        /// Which symbols differ.
        difference: SymbolDifference,
    },
}

impl SetupError {
    /// Makes an [`SetupError::Io`] of a system error; for `map_err`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    /// Makes the failure of a tool that worked on the driver's sources an [`SetupError::Driver`].
    pub(crate) fn of_driver(self) -> Self {
        match self {
            Self::Failed { what, output, .. } => Self::Driver { what, output },
            other => other,
        }
    }

    /// Makes an [`SetupError::Invalid`].
    pub(crate) fn invalid(path: &Path, reason: impl Into<String>) -> Self {
        Self::Invalid {
            path: path.to_owned(),
            reason: reason.into(),
        }
    }
}

fn available_text(available: &[String]) -> String {
    if available.is_empty() {
        "no version of it".to_owned()
    } else {
        available.join(", ")
    }
}
