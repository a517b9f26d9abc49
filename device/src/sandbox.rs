// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The sandbox: what the process gives up before it meets a front end.
//!
//! Everything that needs a path or a privilege is open by then: memory, sockets, files. What is left is copying memory,
//! answering on sockets, and threads.

mod paths;
mod privileges;
mod system_calls;

use std::path::PathBuf;

pub use self::system_calls::SeccompMode;

/// What to give up.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// What happens to a system call that is not on the list.
    pub seccomp: SeccompMode,
    /// Whether paths are closed.
    pub landlock: bool,
    /// Folders in which the process removes its own sockets at the end.
    pub folders: Vec<PathBuf>,
}

impl Sandbox {
    /// Gives up capabilities and paths. Call it before there are other threads.
    ///
    /// # Errors
    /// What could not be given up.
    pub fn close_paths(&self) -> anyhow::Result<()> {
        privileges::limit_resources()?;
        privileges::drop_capabilities()?;
        if self.landlock {
            paths::close(&self.folders)?;
        }
        Ok(())
    }

    /// The numbers of the system calls that are left, for whoever watches the process.
    ///
    /// # Errors
    /// The list is wrong.
    pub fn system_calls() -> anyhow::Result<Vec<i64>> {
        system_calls::numbers()
    }

    /// Gives up system calls, on all threads that there are and will be.
    ///
    /// # Errors
    /// The filter could not be installed.
    pub fn close_system_calls(&self) -> anyhow::Result<()> {
        system_calls::close(self.seccomp)
    }
}
