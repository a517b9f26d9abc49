// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Landlock: no path is of any use any more, and other processes cannot be reached.

use std::path::PathBuf;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope,
};

use super::SandboxError;

/// The newest version that the crate knows. Older kernels enforce what they have of it.
const VERSION: ABI = ABI::V10;

/// Closes all paths; in `folders`, files may be removed. On a kernel without Landlock nothing is closed, and that is
/// said.
pub(super) fn close(folders: &[PathBuf]) -> Result<(), SandboxError> {
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(VERSION))?
        .handle_access(AccessNet::from_all(VERSION))?
        .scope(Scope::from_all(VERSION))?
        .create()?;
    for folder in folders {
        let opened = PathFd::new(folder).map_err(|source| SandboxError::Folder {
            path: folder.clone(),
            source,
        })?;
        ruleset = ruleset.add_rule(PathBeneath::new(opened, AccessFs::RemoveFile))?;
    }
    match ruleset.restrict_self()?.ruleset {
        RulesetStatus::FullyEnforced => {}
        RulesetStatus::PartiallyEnforced => {
            tracing::debug!("this kernel's Landlock is older than what could be enforced");
        }
        RulesetStatus::NotEnforced => {
            tracing::info!("this kernel has no Landlock; paths stay open");
        }
    }
    Ok(())
}
