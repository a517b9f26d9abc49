// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whether bubblewrap can do its work: some systems let only root make the namespaces that it needs.

use std::process::Command;

use super::find_program;
use crate::process;

/// What bubblewrap says when it cannot; `None` when it can, or is not there at all.
pub(crate) fn sandbox_problem() -> Option<String> {
    let mut command = Command::new(find_program("bwrap")?);
    command.args(["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"]);
    command.args(["--unshare-ipc", "--unshare-uts", "--", "true"]);
    match process::output("try bubblewrap", &mut command) {
        Ok(_) => None,
        Err(crate::SetupError::Failed { output, .. }) => Some(output.trim().to_owned()),
        Err(error) => Some(error.to_string()),
    }
}
