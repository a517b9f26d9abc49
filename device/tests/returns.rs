// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Another process comes in the place of one that ended. Its memory is the same, older, of another size, or another's.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use hmm_front_end::{DATA, FrontEnd, Layout, Process, pattern};
use hmm_protocol::{BULK_QUEUE_FIRST, BatchFlags, Config, CopyEntry, Features, Op, Status};
use rustix::process::Signal;
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_vhost-user-hmm");
const LEN: usize = 65536;

/// A memory file in a folder, which outlives the processes.
struct Memory(TempDir);

impl Memory {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("memory")
    }

    fn copy(&self) -> PathBuf {
        self.0.path().join("copy")
    }

    /// A process on this memory, and a front end; no session is open.
    fn start(&self, more: &[&str]) -> (Process, FrontEnd) {
        let file = self.file();
        let file = file.to_str().expect("UTF-8");
        let kept = ["--memory", "16M", "--memory-file", file, "--keep-contents"];
        let process = Process::start(PROGRAM, &[&kept[..], more].concat());
        let front_end = FrontEnd::start(&process.socket(), 1, &Layout::default());
        (process, front_end)
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::copy(from, to).expect("a copy");
}

fn put(front_end: &mut FrontEnd, bytes: &[u8]) {
    front_end.guest.write(DATA, bytes);
    let entry = CopyEntry::new(Op::ToDevice, DATA, 0, bytes.len() as u32);
    assert_eq!(front_end.run(&[entry]).status(), Status::Ok);
}

fn get(front_end: &mut FrontEnd) -> Vec<u8> {
    front_end.guest.write(DATA, &[0xdd; LEN]);
    let entry = CopyEntry::new(Op::ToSystem, DATA, 0, LEN as u32);
    assert_eq!(front_end.run(&[entry]).status(), Status::Ok);
    front_end.guest.read(DATA, LEN)
}

/// The next front end finds the contents of the last with the generation and the key of that one, and in no other way.
#[test]
fn a_process_that_was_killed_or_upgraded_is_followed_by_one_with_its_contents() {
    let memory = Memory::new();
    let bytes = pattern(1, LEN);
    let (mut process, mut front_end) = memory.start(&[]);
    let generation = front_end.open();
    let identity = front_end.config().uuid;
    put(&mut front_end, &bytes);
    for is_killed in [true, false, true, true, false] {
        drop(front_end);
        drop(match is_killed {
            true => process.kill(),
            // It completes what runs, and closes its memory file.
            false => process.end(),
        });
        (process, front_end) = memory.start(&[]);
        let config = front_end.config();
        assert_eq!(
            (config.uuid, config.generation.get()),
            (identity, generation)
        );
        front_end.key = [1; 16];
        assert_eq!(front_end.adopt(generation), Status::StaleGeneration);
        front_end.key = [0x5a; 16];
        assert_eq!(front_end.adopt(generation + 1), Status::StaleGeneration);
        assert_eq!(front_end.adopt(generation), Status::Ok);
        assert_eq!(get(&mut front_end), bytes);
    }
}

/// A batch was given to a process that is killed before it looks at it. No batch is executed by the next one unasked.
#[test]
fn a_batch_that_was_not_answered_changes_nothing_later() {
    let memory = Memory::new();
    let bytes = pattern(2, LEN);
    let (process, mut front_end) = memory.start(&[]);
    let generation = front_end.open();
    put(&mut front_end, &bytes);
    // When the answer comes, no batch is being executed, and none begins.
    process.command_ok(r#"{"command":"pause"}"#);
    front_end.guest.write(DATA, &pattern(3, LEN));
    let entry = CopyEntry::new(Op::ToDevice, DATA, 0, LEN as u32);
    let request = front_end.entries(BatchFlags::STATUS_ARRAY, &[entry]);
    front_end.submit(BULK_QUEUE_FIRST, &request, 1);
    front_end.rings[usize::from(BULK_QUEUE_FIRST)].kick();
    drop(process.kill());
    drop(front_end);
    let (_process, mut front_end) = memory.start(&[]);
    assert_eq!(front_end.adopt(generation), Status::Ok);
    assert_eq!(get(&mut front_end), bytes);
}

/// SIGSTOP and SIGCONT: what was asked meanwhile is served, and nothing is lost.
#[test]
fn a_process_that_stops_and_continues_serves_what_was_asked() {
    let memory = Memory::new();
    let (process, mut front_end) = memory.start(&[]);
    front_end.open();
    let bytes = pattern(4, LEN);
    for _ in 0..5 {
        process.signal(Signal::STOP);
        front_end.guest.write(DATA, &bytes);
        let entry = CopyEntry::new(Op::ToDevice, DATA, 0, LEN as u32);
        let request = front_end.entries(BatchFlags::STATUS_ARRAY, &[entry]);
        let record = front_end.submit(BULK_QUEUE_FIRST, &request, 1);
        front_end.rings[usize::from(BULK_QUEUE_FIRST)].kick();
        process.signal(Signal::CONT);
        let answer = front_end.answer(BULK_QUEUE_FIRST, record, 1);
        assert_eq!(answer.status(), Status::Ok);
        assert_eq!(get(&mut front_end), bytes);
    }
}

/// A copy of the memory file from an earlier session is put back. It has the uuid, and not the generation.
#[test]
fn older_contents_are_refused() {
    let memory = Memory::new();
    let (process, mut front_end) = memory.start(&[]);
    front_end.open();
    put(&mut front_end, &pattern(5, LEN));
    drop(front_end);
    drop(process.end());
    copy(&memory.file(), &memory.copy());
    let (process, mut front_end) = memory.start(&[]);
    let identity = front_end.config().uuid;
    let generation = front_end.open();
    put(&mut front_end, &pattern(6, LEN));
    drop(front_end);
    drop(process.kill());
    copy(&memory.copy(), &memory.file());
    let (_process, mut front_end) = memory.start(&[]);
    assert_eq!(front_end.config().uuid, identity);
    assert_eq!(front_end.adopt(generation), Status::StaleGeneration);
    // A driver that opens a new session finds nothing of the old contents.
    front_end.open();
    assert!(get(&mut front_end).iter().all(|byte| *byte == 0));
}

/// A process for another size does not serve these contents at all, and leaves them as they are.
#[test]
fn another_size_is_refused_before_it_is_a_device() {
    let memory = Memory::new();
    let bytes = pattern(7, LEN);
    let (process, mut front_end) = memory.start(&[]);
    let generation = front_end.open();
    put(&mut front_end, &bytes);
    drop(front_end);
    drop(process.kill());
    for size in ["8M", "32M"] {
        let socket = memory.0.path().join("socket");
        let output = Command::new(PROGRAM)
            .arg("--socket-path")
            .arg(&socket)
            .arg("--memory-file")
            .arg(memory.file())
            .args(["--memory", size])
            .output()
            .expect("the program starts");
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{size}: {errors}");
        assert!(errors.contains("memory"), "{errors}");
        assert!(!socket.exists(), "a socket that nobody serves");
    }
    let (_process, mut front_end) = memory.start(&[]);
    assert_eq!(front_end.adopt(generation), Status::Ok);
    assert_eq!(get(&mut front_end), bytes);
}

/// A process with less to offer has the same identity: its driver can see what is missing before it adopts anything.
#[test]
fn a_process_with_other_features_says_so_before_a_session() {
    let memory = Memory::new();
    let bytes = pattern(8, LEN);
    let (process, mut front_end) = memory.start(&[]);
    let generation = front_end.open();
    let before: Config = front_end.config();
    let features = front_end.negotiated();
    put(&mut front_end, &bytes);
    drop(front_end);
    drop(process.kill());
    let (process, mut front_end) = memory.start(&["--job-queues", "0"]);
    let config = front_end.config();
    assert_eq!(config.uuid, before.uuid);
    let now = front_end.negotiated();
    assert!(features.contains(Features::CONTEXTS) && !now.contains(Features::CONTEXTS));
    // A driver that looks and leaves has taken nothing.
    drop(front_end);
    drop(process.end());
    let (_process, mut front_end) = memory.start(&[]);
    assert_eq!(front_end.adopt(generation), Status::Ok);
    assert_eq!(get(&mut front_end), bytes);
}
