// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the control socket answers.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        net::UnixStream,
    },
    process::Command,
    time::Duration,
};

use hmm_front_end::{DATA, FrontEnd, Layout, Process};
use hmm_protocol::{BULK_QUEUE_FIRST, BatchFlags, CopyEntry, Op, Status};
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_vhost-user-hmm");

fn start() -> (Process, FrontEnd) {
    let process = Process::start(PROGRAM, &["--memory", "16M"]);
    let mut front_end = FrontEnd::start(&process.socket(), 1, &Layout::default());
    front_end.open();
    (process, front_end)
}

fn page(index: u64) -> CopyEntry {
    CopyEntry::new(Op::ToDevice, DATA + index * 4096, index * 4096, 4096)
}

fn fill() -> CopyEntry {
    CopyEntry::new(Op::Fill, 0, 0, 8)
}

/// Whether a queue has something to do, and where it is, as the control socket says.
fn progress(process: &Process, queue: &str) -> (u64, bool) {
    let answer = process.command_ok(r#"{"command":"progress"}"#);
    let queues = answer["queues"].as_array().unwrap();
    let found = queues.iter().find(|entry| entry["queue"] == queue);
    let entry = found.unwrap_or_else(|| panic!("{queue} is not in {answer}"));
    (
        entry["completed"].as_u64().unwrap(),
        entry["is_waiting"].as_bool().unwrap(),
    )
}

/// Waits until a queue is as far as that: a batch is answered before its used element is there.
fn until(process: &Process, queue: &str, expected: (u64, bool)) {
    while progress(process, queue) != expected {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn progress_tells_what_a_queue_has_left_to_do() {
    let (process, mut front_end) = start();
    let (before, is_waiting) = progress(&process, "bulk0");
    assert!(!is_waiting);
    assert_eq!(front_end.run(&[fill()]).status(), Status::Ok);
    until(&process, "bulk0", (before + 1, false));
    process.command_ok(r#"{"command":"fault-add","fault":{"action":"stall","queue":"bulk0"}}"#);
    let request = front_end.entries(BatchFlags::default(), &[fill()]);
    let batch = front_end.submit(BULK_QUEUE_FIRST, &request, 0);
    front_end.rings[usize::from(BULK_QUEUE_FIRST)].kick();
    assert_eq!(progress(&process, "bulk0"), (before + 1, true));
    assert_eq!(progress(&process, "urgent"), (0, false));
    process.command_ok(r#"{"command":"fault-clear"}"#);
    assert_eq!(
        front_end.answer(BULK_QUEUE_FIRST, batch, 0).status(),
        Status::Ok
    );
    until(&process, "bulk0", (before + 2, false));
    let answer = process.command_ok(r#"{"command":"progress"}"#);
    assert_eq!(answer["paused"], false);
    // What the driver posts there waits for something to be told.
    let names: Vec<_> = (answer["queues"].as_array().unwrap().iter())
        .map(|entry| entry["queue"].as_str().unwrap())
        .collect();
    assert!(
        !names.contains(&"event") && !names.contains(&"report"),
        "{names:?}"
    );
}

#[test]
fn mistakes_are_answered_and_change_nothing() {
    let (process, mut front_end) = start();
    for line in [
        "{",
        "[]",
        "7",
        r#"{"command":"explode"}"#,
        r#"{"command":"stats","more":1}"#,
        r#"{"command":"fault-add"}"#,
        r#"{"command":"fault-add","fault":{"action":"fail","nth":0}}"#,
        r#"{"command":"fault-add","fault":{"action":"fail","colour":"red"}}"#,
        r#"{"command":"fault-clear","id":17}"#,
        r#"{"command":"log-level","level":"loud"}"#,
    ] {
        let answer = process.command(line);
        assert_eq!(answer["ok"], false, "{line}: {answer}");
        assert!(answer["error"].is_string(), "{line}: {answer}");
    }
    let list = process.command_ok(r#"{"command":"fault-list"}"#);
    assert_eq!(list["faults"], json!([]));
    process.command_ok(r#"{"command":"log-level","level":"error"}"#);
    assert_eq!(front_end.run(&[fill()]).status(), Status::Ok);
}

#[test]
fn statistics_count_what_happened() {
    let (process, mut front_end) = start();
    process.command_ok(r#"{"command":"stats-reset"}"#);
    let outside = CopyEntry::new(Op::ToSystem, 1 << 40, 0, 4096);
    front_end.run(&[page(0), page(1), outside]);
    front_end.run_urgent(&[fill()]);
    let stats = process.command_ok(r#"{"command":"stats"}"#);
    let queues = &stats["stats"]["queues"];
    let expected: Value = json!({
        "to_device": {"entries_ok": 2, "entries_failed": 0, "bytes": 8192},
        "to_system": {"entries_ok": 0, "entries_failed": 1, "bytes": 0},
    });
    assert_eq!(queues["bulk0"]["ops"], expected);
    assert_eq!(queues["bulk0"]["results"], json!({"bad-guest-address": 1}));
    assert_eq!(queues["bulk0"]["service"]["count"], 1);
    assert_eq!(queues["urgent"]["results"], json!({"ok": 1}));
    assert_eq!(queues["urgent"]["ops"]["fill"]["bytes"], 8);
}

#[test]
fn faults_are_bounded() {
    let process = Process::start(PROGRAM, &["--memory", "2M"]);
    let add = r#"{"command":"fault-add","fault":{"action":"drop","nth":1000000}}"#;
    let mut taken = 0;
    let refusal = loop {
        let answer = process.command(add);
        if answer["ok"] == false {
            break answer;
        }
        taken += 1;
        assert!(taken <= 1000, "there is no bound");
    };
    let error = refusal["error"].as_str().expect("a sentence");
    assert!(error.contains(&format!("{taken} faults")), "{error}");
    process.command_ok(r#"{"command":"fault-clear"}"#);
    process.command_ok(add);
}

/// Clients that ask and do not read, and how often each asks. What would be answered is about 60 MB.
const CLIENTS: usize = 16;
const QUESTIONS: usize = 3000;
/// What the device may take for them.
const UNREAD_KIB: u64 = 16 << 10;

#[test]
fn answers_that_are_not_read_take_little_memory() {
    let process = Process::start(PROGRAM, &["--memory", "2M", "--bulk-queues", "16"]);
    process.command_ok(r#"{"command":"stats"}"#);
    let before = private_kib(&process);
    let question = "{\"command\":\"stats\"}\n".repeat(QUESTIONS);
    let mut clients: Vec<UnixStream> = (0..CLIENTS)
        .map(|_| UnixStream::connect(process.path("control")).expect("the control socket"))
        .collect();
    let writers: Vec<_> = clients
        .iter()
        .map(|client| {
            let (mut client, question) = (client.try_clone().expect("a copy"), question.clone());
            // The device stops reading from a client that does not read; the rest is written when it does, or never.
            std::thread::spawn(move || client.write_all(question.as_bytes()))
        })
        .collect();
    // Each client has its first answers before memory is measured, and another client is answered after them.
    for client in &clients {
        let mut first = [0];
        assert_eq!(peek(client, &mut first), 1);
    }
    process.command_ok(r#"{"command":"info"}"#);
    let taken = private_kib(&process).saturating_sub(before);
    assert!(taken < UNREAD_KIB, "{taken} KiB for unread answers");
    // A client that reads late finds every answer.
    let reader = BufReader::new(clients.swap_remove(0));
    let mut answers = 0;
    for line in reader.lines().take(QUESTIONS) {
        let answer: Value = serde_json::from_str(&line.expect("an answer")).expect("JSON");
        assert_eq!(answer["ok"], true, "{answer}");
        answers += 1;
    }
    assert_eq!(answers, QUESTIONS);
    drop(clients);
    drop(process);
    for writer in writers {
        // Those whose client left, or whose device ended, have written in part.
        let _ = writer.join().expect("no panic");
    }
}

fn peek(stream: &UnixStream, bytes: &mut [u8]) -> usize {
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .expect("a time-out");
    let flags = rustix::net::RecvFlags::PEEK;
    let (count, _) = rustix::net::recv(stream, bytes, flags).expect("an answer");
    count
}

/// Anonymous memory of the process, which is where queued answers are.
fn private_kib(process: &Process) -> u64 {
    let path = format!("/proc/{}/status", process.pid());
    let status = std::fs::read_to_string(path).expect("its status");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .expect("a line");
    let number = line.trim().trim_end_matches(" kB");
    number.parse().expect("a number")
}

#[test]
fn the_socket_has_the_mode_and_the_group_that_were_asked_for() {
    let group = some_group();
    let process = Process::start(
        PROGRAM,
        &[
            "--memory",
            "2M",
            "--control-socket-mode",
            "0606",
            "--control-socket-group",
            &group.to_string(),
        ],
    );
    let metadata = std::fs::metadata(process.path("control")).expect("a socket");
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o606);
    assert_eq!(metadata.gid(), group);
    process.command_ok(r#"{"command":"info"}"#);
    let metadata = std::fs::metadata(process.socket()).expect("a socket");
    assert_eq!(
        metadata.permissions().mode() & 0o7777,
        0o660,
        "the other one is as ever"
    );
}

/// A group that this user may give a file to and that is not the default, where there is one.
fn some_group() -> u32 {
    if rustix::process::geteuid().is_root() {
        return 12345;
    }
    let own = rustix::process::getegid().as_raw();
    let others = rustix::process::getgroups().expect("groups");
    others
        .into_iter()
        .map(rustix::process::Gid::as_raw)
        .find(|group| *group != own)
        .unwrap_or(own)
}

#[test]
fn modes_and_groups_that_do_not_exist_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    for (option, value, code, expected) in [
        ("--control-socket-mode", "0888", 2, "octal"),
        ("--control-socket-mode", "01777", 2, "octal"),
        (
            "--control-socket-group",
            "no-such-group",
            1,
            "no-such-group",
        ),
    ] {
        let output = Command::new(PROGRAM)
            .arg("--socket-path")
            .arg(folder.path().join("socket"))
            .arg("--control-socket")
            .arg(folder.path().join("control"))
            .args([option, value])
            .output()
            .expect("it starts");
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{option}: {errors}");
        assert!(errors.contains(expected), "{option}: {errors}");
        assert!(!folder.path().join("control").exists(), "it is left behind");
    }
}
