// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The sandbox: what the process gives up before it meets a front end.
//!
//! Everything that needs a path or a privilege is open by then: memory, sockets, files. What is left is copying memory,
//! answering on sockets, and threads.

mod error;
mod paths;
mod privileges;
mod remover;
mod system_calls;

pub use self::{
    error::SandboxError,
    remover::{Remover, remove_if_asked},
    system_calls::SeccompMode,
};

/// What to give up.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// What happens to a system call that is not on the list.
    pub seccomp: SeccompMode,
    /// Whether paths are closed.
    pub landlock: bool,
}

impl Sandbox {
    /// Whether something is given up that the process needs to remove its sockets, and whether debuggers are kept out.
    pub fn confines(&self) -> bool {
        self.landlock || self.seccomp != SeccompMode::Off
    }

    /// Gives up capabilities and paths. Call it before there are other threads.
    ///
    /// # Errors
    /// What could not be given up.
    pub fn close_paths(&self) -> Result<(), SandboxError> {
        privileges::limit_resources()?;
        privileges::drop_capabilities()?;
        if self.confines() {
            privileges::refuse_debuggers()?;
        }
        if self.landlock {
            paths::close(&[])?;
        }
        Ok(())
    }

    /// The numbers of the system calls that are left, for tests that watch the process.
    ///
    /// # Errors
    /// The list is wrong.
    pub fn system_calls() -> Result<Vec<i64>, SandboxError> {
        system_calls::numbers()
    }

    /// Gives up system calls, on all threads that there are and will be.
    ///
    /// # Errors
    /// The filter could not be installed.
    pub fn close_system_calls(&self) -> Result<(), SandboxError> {
        system_calls::close(self.seccomp)
    }
}
