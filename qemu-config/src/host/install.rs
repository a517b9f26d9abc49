// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Installing the few host packages where that needs no password.

use std::process::{Command, Stdio};

use super::find_program;
use super::needs::{Finding, Need, Task, examine, install_commands};
use super::sandbox::sandbox_problem;
use crate::{Progress, Result, SetupError, process};

/// Makes sure that the host has what `task` needs: installs what is missing as root or with passwordless sudo, and says
/// so.
///
/// # Errors
/// Names the packages and the command when they cannot be installed from here.
pub fn ensure(task: Task, offline: bool, progress: &Progress) -> Result<()> {
    install_missing(task, offline, progress)?;
    match task {
        // Found out before anything is downloaded.
        Task::Setup => {
            sandbox_problem().map_or(Ok(()), |problem| Err(SetupError::Sandbox { problem }))
        }
        Task::Fuzz => Ok(()),
    }
}

fn install_missing(task: Task, offline: bool, progress: &Progress) -> Result<()> {
    let missing = missing(task);
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<String> = (missing.iter().map(|need| need.debian.to_owned())).collect();
    let lacks = |missing: &[Need]| {
        let (apt, dnf) = install_commands(missing);
        SetupError::HostLacks {
            missing: missing
                .iter()
                .map(|need| format!("{} ({})", need.name, need.purpose))
                .collect(),
            command: if find_program("dnf").is_some() {
                dnf
            } else {
                apt
            },
        }
    };
    let Some(apt) = privileged_apt().filter(|_| !offline) else {
        return Err(lacks(&missing));
    };
    let what = format!("install {} on this machine", packages.join(" "));
    let step = progress.step(&what, None);
    let run = |arguments: &[&str]| {
        let mut command = Command::new(&apt[0]);
        command.args(&apt[1..]).args(arguments);
        process::watch(&what, &mut command, |line| step.detail(line))
    };
    let mut install = vec!["install", "-y", "-q", "--no-install-recommends"];
    install.extend(packages.iter().map(String::as_str));
    if run(&install).is_err() {
        // Machines made from images often have no package lists.
        run(&["update", "-q"])?;
        run(&install)?;
    }
    let still_missing = self::missing(task);
    if !still_missing.is_empty() {
        return Err(lacks(&still_missing));
    }
    step.finish("installed");
    Ok(())
}

fn missing(task: Task) -> Vec<Need> {
    (examine(task).into_iter())
        .filter(|finding: &Finding| finding.found.is_none())
        .map(|finding| finding.need)
        .collect()
}

/// The beginning of an apt-get command that may change the system, if there is one that does not ask for a password.
fn privileged_apt() -> Option<Vec<String>> {
    const NON_INTERACTIVE: &str = "DEBIAN_FRONTEND=noninteractive";
    let apt = find_program("apt-get")?.to_str()?.to_owned();
    find_program("dpkg")?;
    let environment = find_program("env")?.to_str()?.to_owned();
    let unprivileged = [environment, NON_INTERACTIVE.to_owned(), apt];
    if rustix::process::geteuid().is_root() {
        return Some(unprivileged.into());
    }
    let sudo = find_program("sudo")?;
    let passwordless = Command::new(&sudo)
        .args(["-n", "true"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    passwordless.ok().filter(|status| status.success())?;
    let mut command = vec![sudo.to_str()?.to_owned(), "-n".to_owned()];
    command.extend(unprivileged);
    Some(command)
}
