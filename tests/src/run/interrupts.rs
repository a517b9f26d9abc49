// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Signals for `xtask`, and a guest that ends before its command.

use super::site::{Site, script};
use super::{Outcome, RunTest};
use anyhow::{Context, Result, ensure};
use hmm_vm::guest::{ExitStatus, GuestError, GuestErrorKind};

pub(super) const TESTS: &[RunTest] = &[
    RunTest::new("run/a-signal-reaches-the-command", signal_reaches),
    RunTest::ending("run/a-second-signal-ends-the-guest", second_signal),
    RunTest::ending("run/a-guest-that-fails-is-told-apart", guest_fails),
];

/// The signals that are passed on, by number and by the shell's name.
const SIGNALS: [(i32, &str); 3] = [(1, "HUP"), (2, "INT"), (15, "TERM")];

fn signal_reaches(site: &mut Site) -> Result<Outcome> {
    for (signal, name) in SIGNALS {
        let interrupts = site.interrupts.clone();
        // The child of the shell gets it, too, and writes when its own trap is set. The shell's trap waits for its end.
        let command = script(&format!(
            "trap 'exit 9' {name}; (trap 'echo child; exit' {name}; echo ready; while :; do :; done)"
        ));
        site.run_with(&command, move || {
            interrupts.notify(signal);
            Ok(())
        })?
        .expect(ExitStatus::Code(9), "ready\nchild\n")
        .context(name)?;
    }
    Ok(Outcome::Passed)
}

/// A command that ignores the first signal does not keep the guest.
fn second_signal(site: &mut Site) -> Result<Outcome> {
    let interrupts = site.interrupts.clone();
    let command = script("trap '' INT; echo ready; while :; do :; done");
    let ended = site.run_with(&command, move || {
        interrupts.notify(2);
        interrupts.notify(2);
        Ok(())
    });
    let error = ended.err().context("the command has ended")?;
    let error: &GuestError = error.downcast_ref().context("no error of the guest")?;
    ensure!(
        matches!(error.kind(), GuestErrorKind::Interrupted) && error.exit_code() == 130,
        "{error}"
    );
    Ok(Outcome::Passed)
}

/// The code of a guest that fails is none of a command's.
fn guest_fails(site: &mut Site) -> Result<Outcome> {
    let ended = site.run(&script("echo c > /proc/sysrq-trigger; while :; do :; done"));
    let error = ended.err().context("the command has ended")?;
    let error: &GuestError = error.downcast_ref().context("no error of the guest")?;
    ensure!(error.exit_code() == 125, "{error}");
    Ok(Outcome::Passed)
}
