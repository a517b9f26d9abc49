// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The command line.

mod values;

pub(crate) use self::values::{
    MemoryLimit, Policy, PreferredSide, Side, Touches, WindowBounds, YesNo,
};
use self::values::{interval, memory_limit, milliseconds, number, permissions, process};
use crate::delay::Delay;
use crate::range::PageRange;
use crate::size::size;
use clap::{Args, Parser, Subcommand};
use hmm_uapi::client::Process;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Moves memory of processes to the device and back, and shows where it is.
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// The device's node.
    #[arg(long, global = true, value_name = "NODE", default_value = "/dev/hmm0")]
    pub(crate) device: PathBuf,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 failed, 2 wrong usage. 'run', 'record' and 'delay' pass on the exit code of
their command (128 + N if signal N ended it); 125: hmmctl itself failed, 126: the command
cannot be executed, 127: the command was not found.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Shows what the device is.
    Info(Info),
    /// Moves memory of a process to the device or to system memory.
    Migrate(Migrate),
    /// Shows how much of a process's memory is where.
    Residency(Residency),
    /// Runs a program and keeps moving its private anonymous memory to the device.
    Run(Run),
    /// Runs a program and records what the driver does meanwhile, and where the program's memory is.
    Record(Record),
    /// Runs a program and delays kernel functions meanwhile, so that rare races become frequent.
    Delay(Delays),
    /// Says what had better be done with a range of a process's memory.
    Advise(Advise),
    /// Moves a range of a process in the background, and waits for it.
    Prefetch(Prefetch),
    /// Migrates memory back to system memory: a range, or what was wanted least recently.
    Evict(Evict),
    /// Shows or sets how much device memory a process may have.
    Limit(Limit),
    /// Has the device work on the memory of a process, at the process's own addresses, and waits for it.
    Job(Job),
    /// Shows the device's counters.
    Stats(Stats),
    /// Shows, again and again, what the device and the processes on it do: residency, rates, skipped pages.
    Top(Top),
    /// Shows whether the device is there, and each time that it is lost or comes back, until it is gone.
    Watch(Watch),
}

#[derive(Debug, Args)]
pub(crate) struct Info {
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// Print JSON, an object a line.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Top {
    /// Print the rates of one interval, and end.
    #[arg(long)]
    pub(crate) once: bool,
    /// Print JSON: with --once one object with the rates, else what was counted at each interval, an object a line.
    #[arg(long)]
    pub(crate) json: bool,
    /// Milliseconds between two looks, at least 10.
    #[arg(long, value_name = "MS", default_value = "1000", value_parser = interval)]
    pub(crate) interval: Duration,
    /// Show what an earlier 'top --json' printed, instead of the device.
    #[arg(long, value_name = "FILE")]
    pub(crate) replay: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Stats {
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Migrate {
    /// The process; the caller must be allowed to debug it.
    #[arg(long, value_name = "PID", value_parser = process)]
    pub(crate) pid: Process,
    /// Where to.
    #[arg(long, value_name = "SIDE")]
    pub(crate) to: Side,
    /// Only these addresses, hexadecimal and page aligned, as /proc/PID/maps writes them. Without
    /// it: every mapping of the process.
    #[arg(long, value_name = "START-END")]
    pub(crate) range: Option<PageRange>,
    /// To the device: also give device pages to holes of anonymous mappings.
    #[arg(long)]
    pub(crate) populate: bool,
    /// To the device: also move memory locked by mlock().
    #[arg(long)]
    pub(crate) mlocked: bool,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true))]
pub(crate) struct Advise {
    /// The process; the caller must be allowed to debug it.
    #[arg(long, value_name = "PID", value_parser = process)]
    pub(crate) pid: Process,
    /// The addresses, hexadecimal and page aligned, as /proc/PID/maps writes them. All must be mapped.
    #[arg(long, value_name = "START-END")]
    pub(crate) range: PageRange,
    /// The side that the memory had better be on: where a prefetch without --to moves it.
    #[arg(long, value_name = "SIDE", group = "what")]
    pub(crate) side: Option<PreferredSide>,
    /// Whether eviction spares the memory.
    #[arg(long, value_name = "yes|no", group = "what")]
    pub(crate) keep: Option<YesNo>,
    /// What a CPU fault takes along at least and at most, powers of two from 4K to 2M; '0' is the
    /// driver's own choice.
    #[arg(long, value_name = "LEAST-MOST", group = "what")]
    pub(crate) window: Option<WindowBounds>,
    /// By which page fault of the device within 2 MiB the memory moves there; 'never', or 'default' for the first
    /// where the side is the device.
    #[arg(long, value_name = "COUNT|never|default", group = "what")]
    pub(crate) touches: Option<Touches>,
}

#[derive(Debug, Args)]
pub(crate) struct Prefetch {
    /// The process; the caller must be allowed to debug it.
    #[arg(long, value_name = "PID", value_parser = process)]
    pub(crate) pid: Process,
    /// The addresses, hexadecimal and page aligned, as /proc/PID/maps writes them.
    #[arg(long, value_name = "START-END")]
    pub(crate) range: PageRange,
    /// Where to. Without it: each part to the side that is advised for it.
    #[arg(long, value_name = "SIDE")]
    pub(crate) to: Option<Side>,
    /// To the device: also give device pages to holes of anonymous mappings.
    #[arg(long)]
    pub(crate) populate: bool,
    /// Milliseconds after which the prefetch is stopped.
    #[arg(long, value_name = "MS", value_parser = milliseconds)]
    pub(crate) timeout: Option<Duration>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Evict {
    /// The process; the caller must be allowed to debug it.
    #[arg(long, value_name = "PID", value_parser = process, requires = "range")]
    pub(crate) pid: Option<Process>,
    /// These addresses, hexadecimal and page aligned, as /proc/PID/maps writes them.
    #[arg(
        long,
        value_name = "START-END",
        requires = "pid",
        required_unless_present = "bytes"
    )]
    pub(crate) range: Option<PageRange>,
    /// So much of the device's memory, of any process (needs CAP_SYS_PTRACE).
    #[arg(long, value_name = "SIZE", value_parser = size, conflicts_with = "range")]
    pub(crate) bytes: Option<u64>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Limit {
    /// The process; the caller must be allowed to debug it.
    #[arg(long, value_name = "PID", value_parser = process)]
    pub(crate) pid: Process,
    /// The new limit; 'none' for as much as there is. Without it: shows what holds.
    #[arg(long, value_name = "SIZE|none", value_parser = memory_limit)]
    pub(crate) set: Option<MemoryLimit>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Job {
    /// The process; the caller must be allowed to debug it.
    #[arg(long, value_name = "PID", value_parser = process)]
    pub(crate) pid: Process,
    /// End at the first page that the device has not mapped, instead of faulting it in.
    #[arg(long)]
    pub(crate) no_fault: bool,
    /// Milliseconds after which the job is cancelled.
    #[arg(long, value_name = "MS", value_parser = milliseconds)]
    pub(crate) timeout: Option<Duration>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// What to do.
    #[command(subcommand)]
    pub(crate) what: JobCommand,
}

/// What the device does. Addresses are hexadecimal, as /proc/PID/maps writes them, and need not be page aligned.
#[derive(Debug, Subcommand)]
pub(crate) enum JobCommand {
    /// Fills a range with 8 bytes, again and again.
    Fill {
        /// The range.
        #[arg(value_name = "START-END")]
        range: PageRange,
        /// The 8 bytes as one number, the least significant first.
        #[arg(long, value_name = "NUMBER", value_parser = number, default_value = "0")]
        value: u64,
    },
    /// Copies a range.
    Copy {
        /// From where.
        #[arg(value_name = "START-END")]
        range: PageRange,
        /// To where.
        #[arg(value_name = "ADDRESS", value_parser = crate::range::address)]
        to: u64,
    },
    /// Computes the CRC-32C of a range.
    Crc32c {
        /// The range.
        #[arg(value_name = "START-END")]
        range: PageRange,
    },
    /// Adds atomically to each word of a range.
    AtomicAdd {
        /// The range.
        #[arg(value_name = "START-END")]
        range: PageRange,
        /// What to add.
        #[arg(long, value_name = "NUMBER", value_parser = number, default_value = "1")]
        value: u64,
        /// Bytes of a word.
        #[arg(long, value_name = "4|8", default_value = "8", value_parser = clap::value_parser!(u64).range(4..=8))]
        width: u64,
    },
    /// Follows a linked list by its pointers and sums up a number of each node.
    Walk {
        /// The first node.
        #[arg(value_name = "ADDRESS", value_parser = crate::range::address)]
        head: u64,
        /// Where in a node the pointer to the next is, bytes.
        #[arg(long, value_name = "OFFSET", value_parser = number, default_value = "0")]
        next: u64,
        /// Where in a node the number of 8 bytes is, bytes.
        #[arg(long, value_name = "OFFSET", value_parser = number, default_value = "8")]
        value: u64,
        /// How many nodes there are at most.
        #[arg(long, value_name = "COUNT", value_parser = number, default_value = "1000000000")]
        most: u64,
        /// Add this to the number of each node.
        #[arg(long, value_name = "NUMBER", value_parser = number)]
        add: Option<u64>,
    },
    /// Counts the pages of a range that the device has mapped.
    Probe {
        /// The range, page aligned.
        #[arg(value_name = "START-END")]
        range: PageRange,
        /// Only pages that it may read, write, use atomically, and that are in device memory: letters of 'rwad'.
        #[arg(long, value_name = "LETTERS", value_parser = permissions, default_value = "r")]
        permissions: u64,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Residency {
    /// The process; the caller must be allowed to debug it.
    #[arg(long, value_name = "PID", value_parser = process)]
    pub(crate) pid: Process,
    /// Only these addresses, hexadecimal and page aligned, as /proc/PID/maps writes them.
    #[arg(long, value_name = "START-END")]
    pub(crate) range: Option<PageRange>,
    /// Also list the runs of pages that are on the same side.
    #[arg(long)]
    pub(crate) runs: bool,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// How to choose the memory to move, and how fast.
    #[arg(long, value_enum, default_value_t = Policy::ToDevice)]
    pub(crate) policy: Policy,
    /// Milliseconds between two looks at where the program's memory is, at least. With 'stress', between two passes
    /// over it; the program is left alone for at least as long as a pass took.
    #[arg(long, value_name = "MS", default_value = "100", value_parser = milliseconds)]
    pub(crate) interval: Duration,
    /// Write the summary as JSON to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) summary_json: Option<PathBuf>,
    /// Do not print the summary to standard error.
    #[arg(long)]
    pub(crate) quiet: bool,
    /// The program and its arguments.
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

/// Delays of kernel functions.
#[derive(Debug, Args)]
#[command(after_help = DELAYS)]
pub(crate) struct Delays {
    /// List the delays that are in force, of all processes.
    #[arg(long, conflicts_with_all = ["delays", "command", "pid", "seed"])]
    pub(crate) list: bool,
    /// With --list: print JSON.
    #[arg(long, conflicts_with_all = ["delays", "command"])]
    pub(crate) json: bool,
    /// Where the random numbers begin. Without it: anywhere, and the number is printed.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) seed: Option<u64>,
    /// Only this process and its descendants.
    #[arg(long, value_name = "PID", value_parser = process, conflicts_with = "command")]
    pub(crate) pid: Option<Process>,
    /// Print nothing to standard error but errors.
    #[arg(long)]
    pub(crate) quiet: bool,
    /// What to delay: FUNCTION or GROUP, and after '=' how, separated by commas.
    #[arg(required_unless_present = "list", value_name = "DELAY")]
    pub(crate) delays: Vec<Delay>,
    /// The program and its arguments. Without one, delays last until a signal.
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

const DELAYS: &str = "\
A delay: NAME[=PART,...], where a part is
  entry, return      before the function, or after it and before its caller goes on (entry)
  100us, 20us..1ms   how long, from 1us to 2ms (20us..500us)
  5%                 how probable (10%)
  uniform, log       all times are equally likely, or all doublings of them (log)
  everyone           in all tasks, also of the kernel; else in COMMAND and its descendants
  seed:NUMBER        where its random numbers begin
Groups: migrate, rmap, fault, exit, split, ksm, reclaim. ksm and reclaim are mostly work of
the kernel's own tasks: 'ksm=everyone'.";

#[derive(Debug, Args)]
pub(crate) struct Record {
    /// Where to write the recording: text, of which 'cargo xtask report' makes pictures.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Milliseconds between two looks at where the program's memory is, at least.
    #[arg(long, value_name = "MS", default_value = "100", value_parser = interval)]
    pub(crate) interval: Duration,
    /// Memory of the kernel for events that are not written yet, for each processor.
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "4M")]
    pub(crate) buffer: u64,
    /// Write this many lines of the trace at most; the number of the others is told.
    #[arg(long, value_name = "N")]
    pub(crate) events: Option<u64>,
    /// The program and its arguments; 'hmmctl run -- PROGRAM' to have its memory moved.
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

#[cfg(test)]
mod tests {
    use super::{Cli, Command, JobCommand, Policy, WindowBounds, YesNo};
    use clap::{CommandFactory, Parser};
    use std::time::Duration;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_of_the_command_are_its_own() {
        let cli = Cli::try_parse_from([
            "hmmctl",
            "run",
            "--policy",
            "churn",
            "--interval",
            "5",
            "--",
            "sort",
            "--json",
            "-r",
        ])
        .unwrap();
        let Command::Run(run) = cli.command else {
            panic!("run was parsed as {:?}", cli.command);
        };
        assert_eq!(run.policy, Policy::Churn);
        assert_eq!(run.interval, Duration::from_millis(5));
        assert_eq!(run.command, ["sort", "--json", "-r"]);
    }

    #[test]
    fn a_run_without_a_command_is_wrong_usage() {
        let error = Cli::try_parse_from(["hmmctl", "run", "--"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
    }

    #[test]
    fn an_advice_says_something() {
        let base = ["hmmctl", "advise", "--pid=7", "--range=1000-2000"];
        let parse = |more: &[&'static str]| Cli::try_parse_from(base.iter().chain(more));
        assert!(parse(&[]).is_err());
        let cli = parse(&["--keep=yes", "--window=4K-64K"]).unwrap();
        let Command::Advise(advise) = cli.command else {
            panic!("advise was parsed as {:?}", cli.command);
        };
        assert_eq!((advise.side, advise.keep), (None, Some(YesNo::Yes)));
        let window = WindowBounds {
            least: 4096,
            most: 65536,
        };
        assert_eq!(advise.window, Some(window));
        for window in ["64K", "4K-", "4K-8G", "x-y"] {
            assert!(window.parse::<WindowBounds>().is_err(), "{window}");
        }
    }

    #[test]
    fn an_eviction_is_of_a_range_or_of_bytes() {
        let parse = |more: &[&'static str]| {
            Cli::try_parse_from(["hmmctl", "evict"].iter().chain(more)).is_ok()
        };
        assert!(parse(&["--bytes=64M"]));
        assert!(parse(&["--pid=7", "--range=1000-2000"]));
        assert!(!parse(&[]));
        assert!(!parse(&["--pid=7"]));
        assert!(!parse(&["--range=1000-2000"]));
        assert!(!parse(&["--pid=7", "--range=1000-2000", "--bytes=64M"]));
    }

    #[test]
    fn a_job_has_addresses_and_numbers() {
        let parse = |more: &[&'static str]| {
            Cli::try_parse_from(["hmmctl", "job", "--pid=7"].iter().chain(more))
        };
        let cli = parse(&["--no-fault", "walk", "7f00", "--next=0x10", "--add", "3"]).unwrap();
        let Command::Job(job) = cli.command else {
            panic!("job was parsed as {:?}", cli.command);
        };
        assert!(job.no_fault);
        let JobCommand::Walk {
            head,
            next,
            value,
            add,
            ..
        } = job.what
        else {
            panic!("walk was parsed as {:?}", job.what);
        };
        assert_eq!((head, next, value, add), (0x7f00, 0x10, 8, Some(3)));
        for wrong in [
            &["fill"][..],
            &["fill", "2000-1000"],
            &["fill", "1000-2000", "--value=0xg"],
            &["fill", "1000-2000", "--value=0x+1"],
            &["atomic-add", "1000-2000", "--width=16"],
            &["probe", "1000-2000", "--permissions=rx"],
            &["copy", "1000-2000"],
            &["copy", "1000-2000", "-1"],
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn delays_stand_before_the_program() {
        let parse = |more: &[&'static str]| {
            Cli::try_parse_from(["hmmctl", "delay"].iter().chain(more)).map(|cli| cli.command)
        };
        let Ok(Command::Delay(delays)) = parse(&["migrate", "mmput=5%", "--", "sort", "--list"])
        else {
            panic!("it was not parsed");
        };
        assert_eq!(delays.delays.len(), 2);
        assert_eq!(delays.command, ["sort", "--list"]);
        assert!(parse(&["--list", "--json"]).is_ok());
        assert!(parse(&["migrate", "--pid=7"]).is_ok());
        for wrong in [
            &[][..],
            &["--", "true"],
            &["migrate=1h"],
            &["--list", "migrate"],
            &["migrate", "--json"],
            &["migrate", "--pid=7", "--", "true"],
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn process_ids_are_positive() {
        for pid in ["0", "-4", "x", "4294967297"] {
            let arguments = ["hmmctl", "residency", &format!("--pid={pid}")];
            assert!(Cli::try_parse_from(arguments).is_err(), "{pid}");
        }
    }
}
