// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The process in which one case runs.

use super::case::Skip;
use std::process::ExitCode;

/// The first argument that makes this program run one case, named by the second.
pub(super) const ARGUMENT: &str = "--case";
/// The exit codes of the kernel's own tests.
pub(super) const PASSED: u8 = 0;
pub(super) const FAILED: u8 = 1;
pub(super) const SKIPPED: u8 = 4;

/// Runs a case if this process was started for one. To be asked before anything else: the process is not init.
///
/// Standard output gets the reason of a skip, standard error everything that helps to understand a failure, and
/// standard input is the way to the device's control socket.
pub(crate) fn dispatch() -> Option<ExitCode> {
    let mut arguments = std::env::args();
    let argument = arguments.nth(1)?;
    if argument != ARGUMENT {
        return None;
    }
    let name = arguments.next().unwrap_or_default();
    Some(ExitCode::from(run(&name)))
}

fn run(name: &str) -> u8 {
    let Some(case) = super::all().find(|case| case.name == name) else {
        eprintln!("there is no case '{name}'");
        return FAILED;
    };
    match (case.run)() {
        Ok(()) => PASSED,
        Err(error) => match error.downcast_ref::<Skip>() {
            Some(reason) => {
                println!("{reason}");
                SKIPPED
            }
            None => {
                eprintln!("{error:#}");
                FAILED
            }
        },
    }
}
