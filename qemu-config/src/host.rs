// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What set-up and the fuzzer need of the machine that they run on.

mod install;
mod mirror;
mod needs;
mod sandbox;

use std::path::PathBuf;

pub use install::ensure;
pub(crate) use mirror::Mirror;
pub(crate) use needs::debian_keyring;
pub use needs::{Finding, Need, Task, examine, install_commands};
pub(crate) use sandbox::sandbox_problem;

/// The folders of `PATH` and those where administrators' programs live, which not every user's `PATH` names.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(name))
        .find(|candidate| {
            rustix::fs::access(candidate, rustix::fs::Access::EXEC_OK).is_ok()
                && candidate.is_file()
        })
}
