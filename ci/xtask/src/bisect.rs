// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask bisect-run`: the step of `git bisect run` in a kernel tree. Builds the tree, boots it with the driver, runs the
//! command, and ends with a code that git understands ([`verdict`]).
//!
//! Git takes each code from 1 to 127 but 125 for a bad revision. So every failure that is not the revision's has to end with 128 or
//! more, a wrong option included.

mod verdict;

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, ensure};
use hmm_tests::splat::Rules;
use hmm_vm::guest::GuestError;
use hmm_vm::{KernelChoice, Progress, SetupError};

use crate::guest_arguments::GuestArguments;
use crate::run::{FilesArguments, boot, own_streams};
use crate::{build, signals};
use verdict::{Outcome, Reports, Verdict};

/// The name of the command.
pub(crate) const NAME: &str = "bisect-run";

/// Arguments of `bisect-run`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    guest: GuestArguments,
    #[command(flatten)]
    files: FilesArguments,
    /// How the tree is built, as text for `sh` in its folder. A revision that does not build is skipped.
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "make olddefconfig && make -j$(nproc)"
    )]
    build: String,
    /// Count a revision as bad if its kernel reports a fault (BUG, WARNING, KASAN, lockdep), however the command ends.
    #[arg(long)]
    bad_on_report: bool,
    /// The command, and its arguments: 0 is good, 125 leaves the revision out, 128 and above stops, all else is bad.
    #[arg(
        value_name = "COMMAND",
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    command: Vec<OsString>,
}

/// Tries one revision.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    let verdict = tree(arguments).and_then(|tree| {
        ensure!(
            is_command(&arguments.command),
            "there is no option {}, and a command does not begin with a hyphen",
            arguments.command[0].display()
        );
        let outcome = attempt(arguments, &tree)?;
        Ok(Verdict::of(&outcome, &tree))
    });
    let verdict = verdict.unwrap_or_else(|error| Verdict::unable(format!("{error:#}")));
    eprintln!("{NAME}: {verdict}");
    verdict.code()
}

/// An option that there is not would be taken for the command, and be found out after the build.
fn is_command(command: &[OsString]) -> bool {
    (command.first()).is_some_and(|program| !program.as_bytes().starts_with(b"-"))
}

/// The tree: the one that --kernel names, or the folder in which git started this.
fn tree(arguments: &Arguments) -> anyhow::Result<PathBuf> {
    let tree = match arguments.guest.setup.kernel() {
        None => Path::new("."),
        Some(KernelChoice::Tree(folder)) => folder,
        Some(other) => anyhow::bail!("the {other} is no tree that can be bisected"),
    };
    tree.canonicalize()
        .with_context(|| format!("cannot find the tree {}", tree.display()))
}

fn attempt(arguments: &Arguments, tree: &Path) -> anyhow::Result<Outcome> {
    let status = Command::new("sh")
        .args(["-c", &arguments.build])
        .current_dir(tree)
        .status()
        .context("cannot start sh")?;
    if !status.success() {
        return Ok(Outcome::NotBuilt(status));
    }
    let setup = &arguments.guest.setup;
    let options = setup.options_for(KernelChoice::Tree(tree.to_owned()));
    let artifacts = match build::artifacts_for(&options, &Progress::new()) {
        Ok(artifacts) => artifacts,
        Err(error) => {
            return error.downcast::<SetupError>().map(Outcome::NotReady);
        }
    };
    let interrupts = signals::forward()?;
    let mut spec = arguments.guest.spec(NAME, &interrupts)?;
    let limit = arguments.guest.timeout;
    let command = (arguments.files).command(&arguments.command, &[], limit, &mut spec)?;
    let mut guest = match boot(&artifacts, &spec, false) {
        Ok(guest) => guest,
        Err(error) => return error.downcast::<GuestError>().map(Outcome::NotBooted),
    };
    let rules = Rules::read(&build::repository()?.join("ci"))?;
    let end = match guest.exec(&command, own_streams()?) {
        Ok(end) => end,
        Err(error) => return Ok(failed(error, &rules)),
    };
    if !arguments.bad_on_report {
        return Ok(Outcome::Ended(end, Reports(Vec::new())));
    }
    match guest.power_off() {
        Ok(finished) => {
            let log = finished
                .serial_log()
                .context("cannot read the kernel's log")?;
            Ok(Outcome::Ended(end, reports(&rules, &log)))
        }
        Err(error) => Ok(failed(error, &rules)),
    }
}

/// The kernel's log in the folder of a boot.
const SERIAL_LOG: &str = "serial.log";

/// A guest that is gone; its log says whether its kernel failed.
fn failed(error: GuestError, rules: &Rules) -> Outcome {
    let log = match error.logs() {
        Some(folder) => std::fs::read(folder.join(SERIAL_LOG)).unwrap_or_default(),
        None => Vec::new(),
    };
    let reports = reports(rules, &String::from_utf8_lossy(&log));
    Outcome::Failed(error, reports)
}

fn reports(rules: &Rules, log: &str) -> Reports {
    Reports(
        rules
            .scan(log)
            .into_iter()
            .map(|splat| splat.text)
            .collect(),
    )
}

/// The code for a command line that is not understood: every other one than 0 would be a verdict on the revision.
pub(crate) fn code_of_usage(arguments: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    (arguments.into_iter().nth(1).as_deref() == Some(NAME.as_ref())).then(|| ExitCode::from(128))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_option_is_no_verdict_on_a_revision() {
        let words = |text: &str| {
            text.split(' ')
                .map(OsString::from)
                .collect::<Vec<OsString>>()
        };
        assert!(code_of_usage(words("xtask bisect-run --no-such")).is_some());
        assert!(code_of_usage(words("xtask run bisect-run")).is_none());
        assert!(code_of_usage(words("xtask")).is_none());
        assert!(is_command(&words("./test --fast")));
        assert!(!is_command(&words("--bad-on-reprot -- ./test")));
    }

    #[test]
    fn a_panic_in_the_log_is_a_report() {
        let rules = Rules::read(&build::repository().unwrap().join("ci")).unwrap();
        let log = "[    1.0] Run /init\n[    2.0] Kernel panic - not syncing: x\n";
        assert_eq!(reports(&rules, log).0.len(), 1);
        assert!(reports(&rules, "[    1.0] Run /init\n").0.is_empty());
    }
}
