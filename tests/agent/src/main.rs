// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest's init and what it does for the host.
//!
//! The kernel starts this program as process 1. It mounts what a system needs, starts the program once more, and then reaps
//! orphans ([`init`]). The second process serves the host ([`serve`]): it loads the driver, runs commands ([`command`]) and cases
//! ([`cases`]). Each command has a PID namespace, whose first process is this program, and each case is a process of this program.

mod cases;
mod command;
mod host;
mod host_root;
mod init;
mod input;
mod loopback;
mod modules;
mod mounts;
mod oom;
mod output;
mod ports;
mod serve;
mod slots;
mod terminal;
mod wake;

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = cases::dispatch() {
        return code;
    }
    let argument = std::env::args().nth(1);
    let result = match argument.as_deref() {
        // It is process 1 of its namespace.
        Some(command::FIRST_PROCESS) => command::run_first_process(),
        Some(init::SERVE) => serve::run(),
        _ if std::process::id() == 1 => init::run(),
        _ => Err(anyhow::anyhow!(
            "this program is the init of a guest and does nothing elsewhere"
        )),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // In a guest this is the console, where the host looks for the reason of an end.
            eprintln!("hmm-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}
