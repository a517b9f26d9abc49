// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The process in which one case runs.

use super::case::Skip;
use crate::oom;
use std::io::Write;
use std::process::ExitCode;

/// The first argument that makes this program run one case, named by the second.
pub(super) const ARGUMENT: &str = "--case";
/// The first argument that makes this program list the cases.
const LIST: &str = "--list-cases";
/// The exit codes of the kernel's own tests.
pub(super) const PASSED: u8 = 0;
pub(super) const FAILED: u8 = 1;
pub(super) const SKIPPED: u8 = 4;

/// Runs a case if this process was started for one, lists all, measures, or prints a recording. To be asked before anything else: the process is
/// not init.
///
/// Standard output gets the reason of a skip, standard error everything that helps to understand a failure, and
/// standard input is the way to the device's control socket.
pub(crate) fn dispatch() -> Option<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    match arguments.next()?.as_str() {
        ARGUMENT => Some(ExitCode::from(run(&arguments.next().unwrap_or_default()))),
        LIST => Some(ExitCode::from(list())),
        hmm_control::bench::ARGUMENT => Some(ExitCode::from(code_of(super::bench::run()))),
        hmm_control::recording::ARGUMENT => Some(ExitCode::from(code_of(super::recorder::print(
            arguments.next(),
        )))),
        _ => None,
    }
}

/// Writes the names of all cases. The host asks its own copy of the program for them.
fn list() -> u8 {
    let mut names = super::all().map(|case| case.name);
    match names.try_for_each(|name| writeln!(std::io::stdout(), "{name}")) {
        Ok(()) => PASSED,
        Err(_) => FAILED,
    }
}

fn code_of(result: anyhow::Result<()>) -> u8 {
    match result {
        Ok(()) => PASSED,
        Err(error) => {
            eprintln!("{error:#}");
            FAILED
        }
    }
}

fn run(name: &str) -> u8 {
    if let Err(error) = oom::do_not_spare() {
        eprintln!("cannot be a process like others when memory runs out: {error}");
        return FAILED;
    }
    let mut cases = super::all()
        .chain(super::selftest::CASES)
        .chain(super::control::CASES)
        .chain(super::bounce::CASES)
        .chain(super::loss::restart_cases())
        .chain(super::ends::CASES)
        .chain(super::workload::CASES);
    let Some(case) = cases.find(|case| case.name == name) else {
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
