// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The list of system calls against what a device really calls: nothing beside the list, and nothing on the list without
//! need.

mod watch;

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Write},
    os::unix::net::{UnixDatagram, UnixStream},
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

use hmm_front_end::{DATA, FrontEnd, Layout};
use hmm_protocol::{BULK_QUEUE_FIRST, BatchFlags, CopyEntry, Op, Status};
use nix::sys::{
    signal::{Signal, kill},
    wait::WaitStatus,
};
use tempfile::TempDir;
use vhost::vhost_user::VhostUserFrontend;
use vhost_user_hmm::sandbox::Sandbox;

use self::watch::{OnSync, Watched};

const PROGRAM: &str = env!("CARGO_BIN_EXE_vhost-user-hmm");

/// On the list, though a device may end without having called them.
const NOT_ALWAYS: &[(i64, &str)] = &[
    (libc::SYS_openat, "refused; libraries try it all the same"),
    (
        libc::SYS_clock_gettime,
        "where the vDSO cannot tell the time",
    ),
    (libc::SYS_restart_syscall, "the kernel's own, after a stop"),
    (
        libc::SYS_rt_sigaction,
        "of the first thread, which starts before the sandbox where there are executors",
    ),
    (libc::SYS_brk, "the allocator's choice"),
    (libc::SYS_mremap, "the allocator's choice"),
    (libc::SYS_madvise, "the allocator's choice"),
    (
        libc::SYS_sched_yield,
        "only if somebody else is to go first",
    ),
    (
        libc::SYS_getsockopt,
        "only if the front end hands over a socket for requests, as QEMU does",
    ),
    (
        libc::SYS_ppoll,
        "only if the front end hands over a descriptor to signal that may block",
    ),
];

struct Device {
    folder: TempDir,
    watched: Watched,
    notified: UnixDatagram,
}

impl Device {
    fn start() -> Self {
        Self::start_with(|_| None)
    }

    /// Starts it with what is to be done at each `msync()`, for a memory file at the path that is given.
    fn start_with(on_sync: impl FnOnce(&Path) -> Option<OnSync>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let notified = UnixDatagram::bind(at("notify")).expect("a socket");
        let mut command = Command::new(PROGRAM);
        for (option, name) in [
            ("--socket-path", "socket"),
            ("--control-socket", "control"),
            ("--memory-file", "memory"),
            ("--stats-json", "stats"),
            ("--trace", "trace"),
        ] {
            command.arg(option).arg(at(name));
        }
        command
            .args([
                "--memory",
                "16M",
                "--bulk-queues",
                "2",
                "--log-level",
                "debug",
            ])
            .env("NOTIFY_SOCKET", at("notify"))
            .stderr(std::process::Stdio::null());
        let mut watched = Watched::start(command, on_sync(&at("memory")));
        let mut line = String::new();
        BufReader::new(&mut watched.stdout)
            .read_line(&mut line)
            .expect("a line");
        assert!(line.starts_with("listening on "), "{line}");
        Self {
            folder,
            watched,
            notified,
        }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }
}

fn command(socket: &Path, line: &str) {
    let mut stream = UnixStream::connect(socket).expect("the control socket");
    writeln!(stream, "{line}").expect("a command");
    let mut answer = String::new();
    BufReader::new(stream)
        .read_line(&mut answer)
        .expect("an answer");
    assert!(answer.contains("\"ok\":true"), "{line}: {answer}");
}

/// All that a front end and the control socket can ask for, once.
fn everything(device: &Device) {
    let (socket, control) = (device.path("socket"), device.path("control"));
    let mut front_end = FrontEnd::start(&socket, 2, &Layout::default());
    front_end.open();
    let ops = [
        CopyEntry::new(Op::ToDevice, DATA, 0, 2 << 20),
        CopyEntry::new(Op::Copy, 0, 2 << 20, 1 << 20),
        CopyEntry::new(Op::Fill, 1, 4 << 20, 4096),
        CopyEntry::new(Op::ToSystem, DATA, 0, 1 << 20),
    ];
    assert_eq!(front_end.run(&ops).status(), Status::Ok);
    assert_eq!(front_end.run_urgent(&ops[2..3]).status(), Status::Ok);
    // A large batch behind a fence, and one that is wrong.
    let many = vec![CopyEntry::new(Op::Fill, 0, 0, 8); 3800];
    let request = front_end.entries(BatchFlags::FENCE, &many);
    assert_eq!(front_end.execute(&request).status(), Status::Ok);
    let wrong = [CopyEntry::new(Op::ToDevice, 1 << 50, 0, 8)];
    assert_eq!(front_end.run(&wrong).status(), Status::BadGuestAddress);
    for line in [
        r#"{"command":"info"}"#,
        r#"{"command":"stats"}"#,
        r#"{"command":"stats","format":"prometheus"}"#,
        r#"{"command":"fault-add","fault":{"action":"delay","microseconds":30000,"nth":1}}"#,
        r#"{"command":"fault-add","fault":{"action":"poison","start":0,"length":4096}}"#,
        r#"{"command":"fault-list"}"#,
        r#"{"command":"trace","on":false}"#,
        r#"{"command":"trace","on":true}"#,
        r#"{"command":"log-level","level":"info"}"#,
        r#"{"command":"pause"}"#,
        r#"{"command":"resume"}"#,
    ] {
        command(&control, line);
    }
    assert_eq!(front_end.run(&ops[3..]).status(), Status::Poison);
    command(&control, r#"{"command":"fault-clear"}"#);
    command(&control, r#"{"command":"renew"}"#);
    command(&control, r#"{"command":"stats-reset"}"#);
    let region = front_end.guest.regions()[2];
    front_end
        .frontend
        .remove_mem_region(&region)
        .expect("removed");
    front_end.frontend.add_mem_region(&region).expect("added");
    front_end.reboot();
    front_end.open();
    drop(front_end);
    // Another one, and one that only looks in.
    drop(UnixStream::connect(&socket).expect("connect"));
    let mut front_end = FrontEnd::start(&socket, 2, &Layout::default());
    front_end.open();
    // A signal that stops all threads and lets them go on.
    kill(device.watched.pid, Signal::SIGSTOP).expect("it runs");
    thread::sleep(Duration::from_millis(20));
    kill(device.watched.pid, Signal::SIGCONT).expect("it is there");
    assert_eq!(front_end.run(&ops).status(), Status::Ok);
}

#[test]
fn nothing_beside_the_list_is_called_and_nothing_on_it_is_idle() {
    let list: BTreeSet<i64> = Sandbox::system_calls()
        .expect("a list")
        .into_iter()
        .collect();

    let device = Device::start();
    everything(&device);
    kill(device.watched.pid, Signal::SIGTERM).expect("it runs");
    let pid = device.watched.pid;
    let mut message = [0; 32];
    let len = device.notified.recv(&mut message).expect("a message");
    assert_eq!(&message[..len], b"READY=1\n");
    let first = device.watched.end();
    assert_eq!(first.end, Some(WaitStatus::Exited(pid, 0)));
    for file in ["stats", "trace"] {
        let text = std::fs::read_to_string(device.folder.path().join(file)).expect("written");
        serde_json::from_str::<serde_json::Value>(&text).expect("JSON");
    }

    // A device that dies on command ends otherwise.
    let device = Device::start();
    let pid = device.watched.pid;
    let mut front_end = FrontEnd::start(&device.path("socket"), 2, &Layout::default());
    front_end.open();
    command(
        &device.path("control"),
        r#"{"command":"fault-add","fault":{"action":"die"}}"#,
    );
    let request = front_end.entries(BatchFlags::default(), &[CopyEntry::new(Op::Fill, 0, 0, 8)]);
    front_end.submit(BULK_QUEUE_FIRST, &request, 0);
    front_end.rings[usize::from(BULK_QUEUE_FIRST)].kick();
    let second = device.watched.end();
    assert!(
        matches!(second.end, Some(WaitStatus::Signaled(dead, Signal::SIGKILL, _)) if dead == pid),
        "{:?}",
        second.end
    );

    for watch in [&first, &second] {
        assert_eq!(watch.filters, 3, "the sandbox has three filters");
    }
    let called: BTreeSet<i64> = first
        .calls
        .keys()
        .chain(second.calls.keys())
        .copied()
        .collect();
    // What the strictest test there is says as well: a call beside the list would have ended the process.
    let beside: Vec<i64> = called.difference(&list).copied().collect();
    assert!(beside.is_empty(), "not on the list: {beside:?}");
    let idle: Vec<i64> = list
        .difference(&called)
        .copied()
        .filter(|number| !NOT_ALWAYS.iter().any(|(known, _)| known == number))
        .collect();
    assert!(idle.is_empty(), "on the list and not called: {idle:?}");
    for (number, reason) in NOT_ALWAYS {
        assert!(list.contains(number), "{number} ({reason}) is not listed");
    }
}

/// How often statistics are asked for, and how many reads of the account of mappings are too many for that.
const QUESTIONS: usize = 200;
const READS: usize = QUESTIONS / 4;

#[test]
fn statistics_do_not_read_the_account_of_mappings_each_time() {
    let device = Device::start();
    for _ in 0..QUESTIONS {
        command(&device.path("control"), r#"{"command":"stats"}"#);
    }
    kill(device.watched.pid, Signal::SIGTERM).expect("it runs");
    let watch = device.watched.end();
    let reads = watch.calls.get(&libc::SYS_pread64).copied();
    let reads = reads.expect("it is read at least once");
    assert!(reads < READS, "{reads} reads for {QUESTIONS} statistics");
}

const MEMORY_BYTES: u64 = 16 << 20;

/// Whether the newest record of a memory file says that its contents are whole whatever happens to the host.
fn is_closed(file: &Path) -> bool {
    let bytes = std::fs::read(file).expect("the memory file");
    let records = [0, 4096].map(|slot| {
        let at = MEMORY_BYTES as usize + slot;
        let word = |from: usize, len: usize| {
            (bytes[at + from..at + from + len].iter().rev())
                .fold(0u64, |word, byte| word << 8 | u64::from(*byte))
        };
        let (flags, sequence) = (word(12, 4), word(16, 8));
        (sequence, flags)
    });
    records
        .iter()
        .max()
        .is_some_and(|(_, flags)| flags & 1 != 0)
}

#[test]
fn contents_reach_storage_before_the_record_that_they_are_whole() {
    let (tell, told) = std::sync::mpsc::channel();
    let device = Device::start_with(|file| {
        let file = file.to_owned();
        Some(Box::new(move |arguments: [u64; 6]| {
            // A receiver that is gone has failed, and says so itself.
            let _ = tell.send((arguments[1], is_closed(&file)));
        }))
    });
    let mut front_end = FrontEnd::start(&device.path("socket"), 2, &Layout::default());
    front_end.open();
    let entry = CopyEntry::new(Op::ToDevice, DATA, 0, 2 << 20);
    assert_eq!(front_end.run(&[entry]).status(), Status::Ok);
    assert_ne!(told.try_iter().count(), 0, "the owner is on record");
    kill(device.watched.pid, Signal::SIGTERM).expect("it runs");
    let pid = device.watched.pid;
    let end = device.watched.end().end;
    assert_eq!(end, Some(WaitStatus::Exited(pid, 0)), "an orderly end");
    // What is written to storage, in order, and whether the record was in the file by then: it may be written at any time
    // from then on.
    let syncs: Vec<(u64, bool)> = told.iter().collect();
    let contents = syncs.iter().position(|(bytes, _)| *bytes == MEMORY_BYTES);
    let record = syncs.iter().position(|(_, closed)| *closed);
    let contents = contents.expect("the contents are written");
    let record = record.expect("the record is written");
    assert!(contents < record, "{syncs:?}");
    assert_eq!(record, syncs.len() - 1, "{syncs:?}");
}
