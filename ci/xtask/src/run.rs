// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask run`: a command of the host, in the guest.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::builder::{OsStringValueParser, TypedValueParser};
use hmm_vm::guest::{BootSpec, Command, CommandEnd, DryRun, Guest, Input, Root, Streams};
use hmm_vm::{Artifacts, Progress, accel};

use crate::delay::Delay;
use crate::guest_arguments::GuestArguments;
use crate::hermetic::{self, FileArgument};
use crate::report::{Collection, READER};
use crate::surroundings::Variable;
use crate::{build, signals, surroundings};

/// Arguments of `run`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    guest: GuestArguments,
    #[command(flatten)]
    files: FilesArguments,
    /// Record what the driver and the device do, and write a picture of it: one HTML file.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Delay functions of the guest's kernel while the command runs, as 'hmmctl delay' takes it. May be given several times.
    #[arg(long = "delay", value_name = "FUNCTION[=HOW]", value_parser = Delay::read)]
    delays: Vec<Delay>,
    /// Print the commands that start the guest, and start nothing.
    #[arg(long)]
    dry_run: bool,
    /// Say nothing that the command does not say.
    #[arg(long, short)]
    quiet: bool,
    /// The command, and its arguments.
    #[arg(
        value_name = "COMMAND",
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    command: Vec<OsString>,
}

/// Options that say what a command sees.
#[derive(clap::Args)]
pub(crate) struct FilesArguments {
    /// Pack the command, its libraries and the --file's into the guest's image, and share nothing else.
    #[arg(long)]
    hermetic: bool,
    /// Pack a file, or a folder with all that is in it, at its own place or at GUEST. May be given several times.
    #[arg(long = "file", value_name = "HOST[:GUEST]", requires = "hermetic",
          value_parser = OsStringValueParser::new().try_map(FileArgument::read))]
    files: Vec<FileArgument>,
    /// Set a variable in the command's environment, or pass the caller's on. May be given several times.
    #[arg(long = "env", value_name = "NAME[=VALUE]",
          value_parser = OsStringValueParser::new().try_map(Variable::read))]
    variables: Vec<Variable>,
}

impl FilesArguments {
    /// Makes the command and puts into the specification what it needs, and other programs, where files have to be
    /// packed.
    pub(crate) fn command(
        &self,
        argv: &[OsString],
        beside: &[&str],
        limit: Option<Duration>,
        spec: &mut BootSpec,
    ) -> anyhow::Result<Command> {
        let cwd = surroundings::working_directory()?;
        let (root, mut env) = if self.hermetic {
            spec.image = hermetic::pack(argv, beside, &self.files, &cwd)?;
            (Root::Image, surroundings::hermetic_environment())
        } else {
            spec.share_host_root = true;
            let target = build::target_folder()?;
            (Root::Host, surroundings::environment(&target))
        };
        surroundings::add(&mut env, &self.variables);
        Ok(Command {
            argv: argv.to_owned(),
            env,
            cwd,
            root,
            terminal: None,
            limit,
        })
    }
}

/// Runs the command and passes its code on.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let artifacts = build::artifacts(&arguments.guest.setup, &Progress::new())?;
    // From here on, a Ctrl-C is the guest's.
    let interrupts = signals::forward()?;
    let mut spec = arguments.guest.spec("run", &interrupts)?;
    let beside: &[&str] = match arguments.report {
        Some(_) => &[READER],
        None => &[],
    };
    let limit = arguments.guest.timeout;
    let mut command = (arguments.files).command(&arguments.command, beside, limit, &mut spec)?;
    if arguments.dry_run {
        let decision = accel::resolve(spec.accelerator, &artifacts)?;
        print!("{}", DryRun::new(&artifacts, &spec, decision.accelerator));
        return Ok(ExitCode::SUCCESS);
    }
    Delay::wrap(&arguments.delays, arguments.quiet, &mut command);
    let collection = match &arguments.report {
        Some(output) => Some(Collection::begin(output, &mut spec)?),
        None => None,
    };
    if collection.is_some() {
        Collection::wrap(&mut command);
    }
    let mut guest = boot(&artifacts, &spec, arguments.quiet)?;
    let end = guest.exec(&command, own_streams()?)?;
    if !arguments.quiet {
        report_losses(&guest);
    }
    if arguments.guest.keep {
        eprintln!("logs: {}", guest.folder().display());
    }
    let code = passed_on(&end);
    if let Some(collection) = collection {
        let summary = collection.finish(guest, &command)?;
        if !arguments.quiet {
            eprint!("{summary}");
        }
    }
    Ok(code)
}

/// Boots, and says in one line what was booted.
pub(crate) fn boot(artifacts: &Artifacts, spec: &BootSpec, quiet: bool) -> anyhow::Result<Guest> {
    let guest = Guest::boot(artifacts, spec)?;
    if !quiet {
        eprintln!(
            "guest: Linux {}, {} processors, {} memory, accelerator {}",
            guest.hello().kernel,
            spec.cpus,
            spec.memory,
            guest.accelerator()
        );
    }
    Ok(guest)
}

/// Says how often the device was lost, if it was.
fn report_losses(guest: &Guest) {
    for loss in guest.losses(0) {
        match loss.away {
            Some(time) => eprintln!(
                "device: lost ({}), and back after {:.1} s",
                loss.cause,
                time.as_secs_f64()
            ),
            None => eprintln!("device: lost ({}), and not back", loss.cause),
        }
    }
}

/// This program's own streams, without the buffers of the standard library.
pub(crate) fn own_streams() -> anyhow::Result<Streams> {
    let own = |fd: std::os::fd::BorrowedFd<'_>| -> anyhow::Result<File> {
        Ok(File::from(
            fd.try_clone_to_owned()
                .context("cannot use the own streams")?,
        ))
    };
    Ok(Streams {
        stdin: Input::Reader(Box::new(own(std::io::stdin().as_fd())?)),
        stdout: Box::new(own(std::io::stdout().as_fd())?),
        stderr: Box::new(own(std::io::stderr().as_fd())?),
    })
}

/// The command's code, and why there is none of its own if it did not start.
pub(crate) fn passed_on(end: &CommandEnd) -> ExitCode {
    if let CommandEnd::NotStarted { message, .. } = end {
        eprintln!("error: the guest cannot start the command: {message}");
    }
    ExitCode::from(end.shell_code())
}
