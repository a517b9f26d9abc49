// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The process `vhost-user-hmm`. Everything it does is in the library.

use std::{error::Error, io::Write, process::ExitCode};

use clap::Parser;
use vhost_user_hmm::{config, daemon, end, logging, sandbox};

fn main() -> ExitCode {
    if let Some(code) = sandbox::remove_if_asked(std::env::args_os()) {
        return code;
    }
    let args = config::Args::parse();
    let Some(socket) = args.socket() else {
        return print_capabilities();
    };
    end::end_on_panic();
    let run = || -> Result<(), Box<dyn Error>> {
        let level = logging::start(args.log_level, args.log_format)?;
        Ok(daemon::run(&args, &socket, level)?)
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vhost-user-hmm: {error}");
            ExitCode::from(end::EXIT_CONFIGURATION)
        }
    }
}

fn print_capabilities() -> ExitCode {
    let printed = config::capabilities()
        .map_err(std::io::Error::from)
        .and_then(|text| writeln!(std::io::stdout(), "{text}"));
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vhost-user-hmm: Cannot print the capabilities: {error}");
            ExitCode::from(end::EXIT_CONFIGURATION)
        }
    }
}
