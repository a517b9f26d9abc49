// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The command line, by the conventions that QEMU documents for vhost-user back ends.

use std::{os::fd::RawFd, path::PathBuf};

use clap::{ArgGroup, Parser};
use hmm_protocol::{JobLimits, MAX_BULK_QUEUES, MAX_JOB_QUEUES};
use serde::Serialize;
use tracing::level_filters::LevelFilter;

use crate::{
    engine::{CopyChoice, Shape},
    logging::{LogFormat, parse_level},
    memory::HugePage,
    model::LinkSpec,
    sandbox::SeccompMode,
    size::{SizeError, parse_size},
};

/// Device memory comes in blocks of this size.
const BLOCK_BYTES: u64 = 2 << 20;
/// Most that a driver accepts.
const MAX_MEMORY_BYTES: u64 = 1 << 46;
/// QEMU refuses larger queues.
const MAX_QUEUE_SIZE: u16 = 1024;

/// What the program's manual says beside its options.
const MORE: &str = "\
EXIT CODES
   0  the end was asked for: a signal, --print-capabilities, or the only front end went
   1  an argument, file or socket cannot be used
   2  the command line is wrong
  70  the process failed in itself; half a device is never left

READINESS
  Once the socket is bound, the line 'listening on …' goes to standard output, and READY=1 to systemd if it started the
  process. Logs go to standard error.

SIGNALS
  SIGTERM and SIGINT end the process: the front end is disconnected, the batch that runs is completed, the memory file
  and the files of --trace and --stats-json are closed.

EXAMPLE
  vhost-user-hmm --socket-path /run/hmm.sock --memory 1G &
  qemu-system-x86_64 … -object memory-backend-memfd,id=mem,size=4G,share=on -machine q35,memory-backend=mem \\
    -chardev socket,id=hmm,path=/run/hmm.sock -device pcie-root-port,id=port,chassis=1 \\
    -device vhost-user-test-device-pci,bus=port,chardev=hmm,virtio-id=37,num_vqs=8,vq_size=256,config_size=128

  num_vqs is 3, the number of bulk queues, and with job queues 2 more and their number. With fewer the driver does without
  contexts and jobs. The guest's memory must be shared.";

/// A vhost-user device with private memory and a DMA engine.
#[derive(Clone, Debug, Parser)]
#[command(after_long_help = MORE)]
#[command(name = "vhost-user-hmm", version, args_override_self = true)]
#[command(group = ArgGroup::new("socket").required(true).args(["socket_path", "fd", "print_capabilities"]))]
pub struct Args {
    /// Listen for a front end on this Unix socket
    #[arg(long, value_name = "PATH")]
    pub socket_path: Option<PathBuf>,

    /// Serve the front end on this inherited socket: one that is connected, or one that listens
    #[arg(long, value_name = "FDNUM", value_parser = clap::value_parser!(i32).range(3..))]
    pub fd: Option<RawFd>,

    /// Print what this back end can do, as JSON, and exit
    #[arg(long)]
    pub print_capabilities: bool,

    /// Size of the device's private memory: a multiple of 2M
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = parse_memory)]
    pub memory: u64,

    /// Keep device memory in this file, beyond the life of the process
    #[arg(long, value_name = "PATH")]
    pub memory_file: Option<PathBuf>,

    /// Keep contents when the front end disconnects, for a driver that knows their key. Otherwise they are scrubbed
    #[arg(long)]
    pub keep_contents: bool,

    /// Back device memory with huge pages of this size, 2M or 1G, which the host must have reserved
    #[arg(long, value_name = "SIZE", value_parser = parse_huge_page, conflicts_with = "memory_file")]
    pub hugetlb: Option<HugePage>,

    /// Touch all device memory at the start, and again whenever its contents are given up
    #[arg(long)]
    pub prefault: bool,

    /// How large batches are copied: with what is measured to be fastest at the start (auto), with one routine (its
    /// name), or not at all (none)
    #[arg(
        long,
        value_name = "ROUTINE",
        default_value_t,
        requires_if("none", "bench_lose_data")
    )]
    pub copy: CopyChoice,

    /// Acknowledge that --copy none loses all data that passes the device; it is of use to benchmarks only
    #[arg(long, conflicts_with = "memory_file")]
    pub bench_lose_data: bool,

    /// Model a link: a preset such as pcie4x16, or latency=TIME,bandwidth=RATE, by direction with to_device. or to_system.
    /// in front
    #[arg(long, value_name = "LINK")]
    pub link: Option<LinkSpec>,

    /// Longest time, in microseconds, to look for the next batch before a worker sleeps; 0 for never
    #[arg(long, value_name = "N", default_value_t = 500,
          value_parser = clap::value_parser!(u64).range(0..=10_000))]
    pub poll_us: u64,

    /// Longest copying, in microseconds, before completions are published; those of one update cost the driver one signal at most
    #[arg(long, value_name = "N", default_value_t = 50,
          value_parser = clap::value_parser!(u64).range(0..=60_000_000))]
    pub completion_us: u64,

    /// Number of bulk queues, each with a thread of its own
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_BULK_QUEUES)))]
    pub bulk_queues: u32,

    /// Number of queues for jobs; with them come the MMU queue and the report queue. 0: drivers see a device without
    /// contexts and jobs
    #[arg(long, value_name = "N", default_value_t = 2,
          value_parser = clap::value_parser!(u32).range(0..=i64::from(MAX_JOB_QUEUES)))]
    pub job_queues: u32,

    /// Most contexts, that is, address spaces that the device works in
    #[arg(long, value_name = "N", default_value_t = 4096,
          value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub max_contexts: u32,

    /// Number of threads that execute jobs; 4 if not given, but no more than there are processors
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub executors: Option<u16>,

    /// Most jobs that were accepted and whose end was not reported yet
    #[arg(long, value_name = "N", default_value_t = 1024,
          value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub max_jobs: u32,

    /// Most harts of a program; 0: the device runs no programs
    #[arg(long, value_name = "N", default_value_t = 64,
          value_parser = clap::value_parser!(u32).range(0..=1024))]
    pub max_harts: u32,

    /// Time, in milliseconds, after which a job ends whose page fault was not answered
    #[arg(long, value_name = "N", default_value_t = 30_000,
          value_parser = clap::value_parser!(u32).range(1..=3_600_000))]
    pub fault_timeout_ms: u32,

    /// Most memory for the page tables of all contexts; what does not fit is refused as busy
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = parse_size)]
    pub page_tables: u64,

    /// Most descriptors of a queue: a power of two
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = parse_queue_size)]
    pub queue_size: u16,

    /// Answer commands, as JSON lines, on this Unix socket
    #[arg(long, value_name = "PATH")]
    pub control_socket: Option<PathBuf>,

    /// Permissions of the control socket, as an octal number
    #[arg(long, value_name = "MODE", default_value = "0660", value_parser = parse_mode, requires = "control_socket")]
    pub control_socket_mode: u32,

    /// Group of the control socket, by its name or its number; the process's own if not given
    #[arg(long, value_name = "GROUP", requires = "control_socket")]
    pub control_socket_group: Option<String>,

    /// Write all statistics to this file, as JSON, at the end
    #[arg(long, value_name = "PATH")]
    pub stats_json: Option<PathBuf>,

    /// Trace all batches to this file, for Chrome's or Perfetto's viewer
    #[arg(long, value_name = "PATH")]
    pub trace: Option<PathBuf>,

    /// Inject the faults of this file, one JSON object a line
    #[arg(long, value_name = "PATH")]
    pub fault_script: Option<PathBuf>,

    /// Take no faults, neither from a file nor on the control socket, and tell drivers that there will be none
    #[arg(long, conflicts_with = "fault_script")]
    pub no_faults: bool,

    /// What happens to a system call that the process has no need of
    #[arg(long, value_enum, default_value_t)]
    pub seccomp: SeccompMode,

    /// Whether paths are closed, where the kernel has Landlock
    #[arg(long, value_enum, default_value_t)]
    pub landlock: Switch,

    /// off, error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", default_value = "info", value_parser = parse_level)]
    pub log_level: LevelFilter,

    /// How log lines look
    #[arg(long, value_enum, default_value_t)]
    pub log_format: LogFormat,

    /// End when the front end disconnects, instead of waiting for the next
    #[arg(long)]
    pub exit_on_disconnect: bool,
}

/// On or off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Switch {
    /// On.
    #[default]
    On,
    /// Off.
    Off,
}

/// Where front ends come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Socket {
    /// A path to bind.
    Path(PathBuf),
    /// An inherited descriptor.
    Inherited(RawFd),
}

/// What `--print-capabilities` prints.
#[derive(Debug, Serialize)]
struct Capabilities {
    /// The kind of back end.
    #[serde(rename = "type")]
    kind: &'static str,
    /// Optional features.
    features: [&'static str; 6],
    /// Version of the wire format, major and minor.
    wire_format: (u16, u16),
    /// The virtio device id that the front end must give the device.
    virtio_id: u32,
    /// Bytes of the configuration space.
    config_bytes: usize,
    /// Queues beside the bulk queues.
    queues_beside_bulk: u16,
}

/// The text that `--print-capabilities` prints.
///
/// # Errors
/// The object cannot be written as JSON, which is not known to happen.
pub fn capabilities() -> serde_json::Result<String> {
    serde_json::to_string_pretty(&Capabilities {
        kind: "hmm",
        features: [
            "memory-file",
            "fault-injection",
            "control-socket",
            "bench-lose-data",
            "keep-contents",
            "no-faults",
        ],
        wire_format: (hmm_protocol::VERSION_MAJOR, hmm_protocol::VERSION_MINOR),
        virtio_id: hmm_protocol::VIRTIO_ID,
        config_bytes: hmm_protocol::CONFIG_BYTES,
        queues_beside_bulk: hmm_protocol::BULK_QUEUE_FIRST,
    })
}

impl Args {
    /// How much of everything the device has.
    pub fn shape(&self) -> Shape {
        let default = Shape::default();
        Shape {
            bulk_queues: self.bulk_queues,
            jobs: JobLimits {
                job_queues: self.job_queues,
                max_contexts: self.max_contexts,
                max_jobs: self.max_jobs,
                max_harts: self.max_harts,
                fault_timeout_ms: self.fault_timeout_ms,
                ..default.jobs
            },
            table_bytes: self.page_tables,
        }
    }

    /// The socket, unless only capabilities were asked for.
    pub fn socket(&self) -> Option<Socket> {
        match (&self.socket_path, self.fd) {
            (Some(path), _) => Some(Socket::Path(path.clone())),
            (None, Some(fd)) => Some(Socket::Inherited(fd)),
            (None, None) => None,
        }
    }
}

/// Why the value of an option is refused.
#[derive(Debug, thiserror::Error)]
enum ValueError {
    #[error(transparent)]
    Size(#[from] SizeError),
    #[error("expected a multiple of 2M from 2M to 64T, found {0} bytes")]
    Memory(u64),
    #[error("expected 2M or 1G, found '{0}'")]
    HugePage(String),
    #[error("expected an octal number from 0 to 0777, found '{0}'")]
    Mode(String),
    #[error("expected a power of two from 2 to {MAX_QUEUE_SIZE}, found '{0}'")]
    QueueSize(String),
}

fn parse_memory(text: &str) -> Result<u64, ValueError> {
    let bytes = parse_size(text)?;
    if bytes == 0 || !bytes.is_multiple_of(BLOCK_BYTES) || bytes > MAX_MEMORY_BYTES {
        return Err(ValueError::Memory(bytes));
    }
    Ok(bytes)
}

fn parse_huge_page(text: &str) -> Result<HugePage, ValueError> {
    match parse_size(text)? {
        0x20_0000 => Ok(HugePage::Size2M),
        0x4000_0000 => Ok(HugePage::Size1G),
        _ => Err(ValueError::HugePage(text.to_owned())),
    }
}

fn parse_mode(text: &str) -> Result<u32, ValueError> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 && !text.starts_with('+') => Ok(mode),
        _ => Err(ValueError::Mode(text.to_owned())),
    }
}

fn parse_queue_size(text: &str) -> Result<u16, ValueError> {
    match text.parse::<u16>() {
        Ok(size) if size.is_power_of_two() && (2..=MAX_QUEUE_SIZE).contains(&size) => Ok(size),
        _ => Err(ValueError::QueueSize(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::{Args, Socket};

    fn parse(arguments: &[&str]) -> Result<Args, String> {
        Args::try_parse_from([&["vhost-user-hmm"], arguments].concat())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_command_line_makes_sense() {
        Args::command().debug_assert();
    }

    #[test]
    fn one_socket_is_needed() {
        assert!(parse(&[]).is_err());
        assert!(parse(&["--socket-path", "/tmp/a", "--fd", "3"]).is_err());
        let args = parse(&["--fd", "3"]).expect("fd");
        assert_eq!(args.socket(), Some(Socket::Inherited(3)));
    }

    #[test]
    fn data_is_not_lost_by_accident() {
        let none = ["--socket-path", "/tmp/a", "--copy", "none"];
        assert!(parse(&none).is_err());
        let asked = [&none[..], &["--bench-lose-data"]].concat();
        assert!(parse(&asked).is_ok());
        let kept = [&asked[..], &["--memory-file", "/tmp/b"]].concat();
        assert!(parse(&kept).is_err(), "a file keeps what is copied to it");
    }

    #[test]
    fn values_are_checked() {
        for bad in [
            ["--memory", "0"],
            ["--memory", "3M"],
            ["--memory", "100T"],
            ["--bulk-queues", "0"],
            ["--bulk-queues", "17"],
            ["--job-queues", "17"],
            ["--max-contexts", "0"],
            ["--executors", "0"],
            ["--max-jobs", "0"],
            ["--fault-timeout-ms", "0"],
            ["--max-contexts", "1048577"],
            ["--page-tables", "string"],
            ["--queue-size", "1"],
            ["--queue-size", "100"],
            ["--queue-size", "2048"],
            ["--hugetlb", "4K"],
            ["--copy", "fast"],
            ["--poll-us", "1000000"],
            ["--completion-us", "60000001"],
            ["--link", "string"],
            ["--log-level", "loud"],
            ["--log-format", "xml"],
        ] {
            let arguments = ["--socket-path", "/tmp/a", bad[0], bad[1]];
            assert!(parse(&arguments).is_err(), "{bad:?} was taken");
        }
        assert!(
            parse(&["--fd", "1"]).is_err(),
            "standard output is no socket"
        );
    }
}
