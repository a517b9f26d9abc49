// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Landlock: no path is of any use any more, but for removing the process's own sockets.

use std::path::PathBuf;

use anyhow::Context;
use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus,
};

/// Closes all paths; in `folders`, files may be removed. On a kernel without Landlock nothing is closed, and that is
/// said.
pub(super) fn close(folders: &[PathBuf]) -> anyhow::Result<()> {
    let context = "Cannot close paths";
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI::V3))
        .context(context)?
        .create()
        .context(context)?;
    for folder in folders {
        let opened = PathFd::new(folder)
            .with_context(|| format!("Cannot open the folder {}", folder.display()))?;
        ruleset = ruleset
            .add_rule(PathBeneath::new(opened, AccessFs::RemoveFile))
            .context(context)?;
    }
    let status = ruleset.restrict_self().context(context)?;
    match status.ruleset {
        RulesetStatus::FullyEnforced => {}
        RulesetStatus::PartiallyEnforced => {
            tracing::info!("this kernel's Landlock closes paths in part only");
        }
        RulesetStatus::NotEnforced => {
            tracing::info!("this kernel has no Landlock; paths stay open");
        }
    }
    Ok(())
}
