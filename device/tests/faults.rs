// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Faults on command, from the control socket and from scripts.

use std::time::{Duration, Instant};

use hmm_front_end::{DATA, FrontEnd, Layout, Process, pattern};
use hmm_protocol::{
    BULK_QUEUE_FIRST, BatchFlags, CopyEntry, EventKind, Op, PAGE_ADDRESS_SKIP, PageList, Status,
    URGENT_QUEUE,
};
use serde_json::json;

const PROGRAM: &str = env!("CARGO_BIN_EXE_vhost-user-hmm");
const QUEUE: usize = BULK_QUEUE_FIRST as usize;

fn start() -> (Process, FrontEnd) {
    let process = Process::start(PROGRAM, &["--memory", "16M"]);
    let mut front_end = FrontEnd::start(&process.socket(), 1, &Layout::default());
    front_end.open();
    (process, front_end)
}

fn add(process: &Process, fault: &str) -> u64 {
    let answer = process.command_ok(&format!(r#"{{"command":"fault-add","fault":{fault}}}"#));
    answer["id"].as_u64().expect("a number")
}

fn clear(process: &Process) {
    process.command_ok(r#"{"command":"fault-clear"}"#);
}

/// Waits until the fault that was added last has met a batch or an entry.
fn wait_until_met(process: &Process) {
    let started = Instant::now();
    while process.command_ok(r#"{"command":"fault-list"}"#)["faults"][0]["seen"] == 0 {
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "nothing meets the fault"
        );
    }
}

fn page(index: u64) -> CopyEntry {
    CopyEntry::new(Op::ToDevice, DATA + index * 4096, index * 4096, 4096)
}

fn fill() -> CopyEntry {
    CopyEntry::new(Op::Fill, 0, 0, 8)
}

#[test]
fn entries_fail_as_asked() {
    let (process, mut front_end) = start();
    add(
        &process,
        r#"{"action":"fail","status":"poison","every":3,"op":"to_device"}"#,
    );
    let entries: Vec<CopyEntry> = (0..10).map(page).collect();
    let answer = front_end.run(&entries);
    assert_eq!(answer.status(), Status::Poison);
    assert_eq!(answer.completion.entries_ok.get(), 7);
    for index in 0..10 {
        let expected = if index % 3 == 2 {
            Status::Poison
        } else {
            Status::Ok
        };
        assert_eq!(answer.entry(index), expected, "entry {index}");
    }
    let home = CopyEntry::new(Op::ToSystem, DATA, 0, 4096);
    assert_eq!(
        front_end.run(&[home]).status(),
        Status::Ok,
        "another operation"
    );
    let list = process.command_ok(r#"{"command":"fault-list"}"#);
    assert_eq!(list["faults"][0]["seen"], 10);
    assert_eq!(list["faults"][0]["fired"], 3);
    clear(&process);
    assert_eq!(front_end.run(&entries).status(), Status::Ok);
}

#[test]
fn pages_of_a_list_count_unless_skipped() {
    let (process, mut front_end) = start();
    add(&process, r#"{"action":"fail","nth":2}"#);
    let addresses = [DATA, PAGE_ADDRESS_SKIP, DATA + 4096, DATA + 8192];
    let list = PageList::new(Op::ToDevice, 12, 0);
    let request = front_end.page_list(BatchFlags::STATUS_ARRAY, &list, &addresses);
    let answer = front_end.execute(&request);
    let statuses: Vec<Status> = (0..4).map(|index| answer.entry(index)).collect();
    assert_eq!(
        statuses,
        [Status::Ok, Status::Ok, Status::Internal, Status::Ok]
    );
}

#[test]
fn batches_fail_by_queue_and_count() {
    let (process, mut front_end) = start();
    add(
        &process,
        r#"{"action":"fail","on":"batch","status":"busy","queue":"urgent","count":2}"#,
    );
    assert_eq!(front_end.run(&[fill()]).status(), Status::Ok);
    for expected in [Status::Busy, Status::Busy, Status::Ok] {
        let answer = front_end.run_urgent(&[fill()]);
        assert_eq!(answer.status(), expected);
        assert_eq!(
            answer.used_len,
            if expected == Status::Ok { 40 } else { 32 }
        );
    }
}

#[test]
fn chance_follows_the_seed() {
    let run = || {
        let (process, mut front_end) = start();
        add(&process, r#"{"action":"fail","fraction":0.3,"seed":11}"#);
        let entries: Vec<CopyEntry> = (0..200).map(page).collect();
        front_end.run(&entries).statuses
    };
    let first = run();
    assert_eq!(first, run());
    let failed = first.iter().filter(|status| **status == 0x3f).count();
    assert!((30..90).contains(&failed), "{failed} of 200");
}

#[test]
fn completions_are_shortened_doubled_and_marked() {
    let (process, mut front_end) = start();
    add(&process, r#"{"action":"shorten","length":7,"nth":1}"#);
    assert_eq!(front_end.run(&[fill()]).used_len, 7);
    clear(&process);
    add(&process, r#"{"action":"cookie","nth":1}"#);
    let request = front_end.entries(BatchFlags::default(), &[fill()]);
    let sent = u64::from_le_bytes(request[8..16].try_into().expect("8 bytes"));
    assert_eq!(front_end.execute(&request).completion.cookie.get(), !sent);
    clear(&process);
    add(&process, r#"{"action":"duplicate","nth":1}"#);
    let request = front_end.entries(BatchFlags::default(), &[fill()]);
    front_end.submit(BULK_QUEUE_FIRST, &request, 0);
    front_end.rings[QUEUE].kick();
    let first = front_end.rings[QUEUE].wait(&front_end.guest);
    assert_eq!(front_end.rings[QUEUE].wait(&front_end.guest), first);
}

#[test]
fn a_dropped_completion_never_comes() {
    let (process, mut front_end) = start();
    add(&process, r#"{"action":"drop","nth":1}"#);
    let request = front_end.entries(BatchFlags::default(), &[fill()]);
    let lost = front_end.submit(BULK_QUEUE_FIRST, &request, 0);
    let kept = front_end.submit(BULK_QUEUE_FIRST, &request, 0);
    front_end.rings[QUEUE].kick();
    let answer = front_end.answer(BULK_QUEUE_FIRST, kept, 0);
    assert_eq!(answer.status(), Status::Ok);
    assert_eq!(front_end.guest.load_u8(lost), 0);
    assert_eq!(front_end.rings[QUEUE].poll(&front_end.guest), None);
}

#[test]
fn a_reordered_completion_follows_the_next() {
    let (process, mut front_end) = start();
    add(&process, r#"{"action":"reorder","nth":1}"#);
    let request = front_end.entries(BatchFlags::default(), &[fill()]);
    let first = front_end.submit(BULK_QUEUE_FIRST, &request, 0);
    front_end.rings[QUEUE].kick();
    wait_until_met(&process);
    assert_eq!(front_end.guest.load_u8(first), 0, "it did not wait");
    front_end.submit(BULK_QUEUE_FIRST, &request, 0);
    front_end.rings[QUEUE].kick();
    let second_head = front_end.rings[QUEUE].wait(&front_end.guest).head;
    let first_head = front_end.rings[QUEUE].wait(&front_end.guest).head;
    assert!(first_head < second_head);
    assert_eq!(front_end.guest.load_u8(first), 1);
}

#[test]
fn a_corrupted_byte_is_one_bit() {
    let (process, mut front_end) = start();
    let bytes = pattern(1, 4096);
    front_end.guest.write(DATA, &bytes);
    add(
        &process,
        r#"{"action":"corrupt","offset":100,"op":"to_device","nth":1}"#,
    );
    assert_eq!(front_end.run(&[page(0)]).status(), Status::Ok);
    let home = CopyEntry::new(Op::ToSystem, DATA, 0, 4096);
    assert_eq!(front_end.run(&[home]).status(), Status::Ok);
    let found = front_end.guest.read(DATA, 4096);
    let differing: Vec<usize> = (0..4096).filter(|at| found[*at] != bytes[*at]).collect();
    assert_eq!(differing, [100]);
    assert_eq!((found[100] ^ bytes[100]).count_ones(), 1);
    clear(&process);
    add(
        &process,
        r#"{"action":"corrupt","offset":5,"op":"to_system","nth":1}"#,
    );
    assert_eq!(front_end.run(&[home]).status(), Status::Ok);
    assert_eq!(front_end.guest.read(DATA + 5, 1)[0], found[5] ^ 1);
}

#[test]
fn poisoned_memory_cannot_be_read_and_the_driver_is_told() {
    let (process, mut front_end) = start();
    assert_eq!(
        front_end.run(&[page(0), page(1), page(2)]).status(),
        Status::Ok
    );
    let at = front_end.post_event_buffer(0);
    add(&process, r#"{"action":"poison","start":5000,"length":10}"#);
    let event = front_end.event(at);
    assert_eq!(event.kind, EventKind::Poison as u8);
    assert_eq!(event.value.get(), 5000);
    let home = |index: u64| CopyEntry::new(Op::ToSystem, DATA, index * 4096, 4096);
    let copy = CopyEntry::new(Op::Copy, 4096, 1 << 20, 4096);
    let answer = front_end.run(&[home(0), home(1), home(2), copy, page(1)]);
    let statuses: Vec<Status> = (0..5).map(|index| answer.entry(index)).collect();
    assert_eq!(
        statuses,
        [
            Status::Ok,
            Status::Poison,
            Status::Ok,
            Status::Poison,
            Status::Ok
        ]
    );
}

#[test]
fn a_stalled_queue_goes_on_when_the_fault_goes() {
    let (process, mut front_end) = start();
    add(&process, r#"{"action":"stall","queue":"bulk0"}"#);
    let request = front_end.entries(BatchFlags::default(), &[fill()]);
    let record = front_end.submit(BULK_QUEUE_FIRST, &request, 0);
    front_end.rings[QUEUE].kick();
    assert_eq!(front_end.run_urgent(&[fill()]).status(), Status::Ok);
    assert_eq!(front_end.rings[QUEUE].poll(&front_end.guest), None);
    clear(&process);
    let answer = front_end.answer(BULK_QUEUE_FIRST, record, 0);
    assert_eq!(answer.status(), Status::Ok);
}

#[test]
fn pausing_holds_batches_and_nothing_else() {
    let (process, mut front_end) = start();
    process.command_ok(r#"{"command":"pause"}"#);
    assert_eq!(process.command_ok(r#"{"command":"info"}"#)["paused"], true);
    let mut records = Vec::new();
    for queue in [URGENT_QUEUE, BULK_QUEUE_FIRST] {
        let request = front_end.entries(BatchFlags::default(), &[fill()]);
        records.push(front_end.submit(queue, &request, 0));
        front_end.rings[usize::from(queue)].kick();
    }
    let ping = hmm_protocol::ControlRequest::new(hmm_protocol::ControlKind::Ping, 0, 1, 0, 0);
    let (reply, _) = front_end.control(zerocopy::IntoBytes::as_bytes(&ping));
    assert_eq!(reply.status, Status::Ok.to_wire());
    assert!(records.iter().all(|at| front_end.guest.load_u8(*at) == 0));
    process.command_ok(r#"{"command":"resume"}"#);
    for (queue, record) in [URGENT_QUEUE, BULK_QUEUE_FIRST].into_iter().zip(records) {
        assert_eq!(front_end.answer(queue, record, 0).status(), Status::Ok);
    }
}

#[test]
fn a_delay_holds_a_batch_but_not_whoever_stops_the_queue() {
    use vhost::{VhostBackend, vhost_user::VhostUserFrontend};
    let (process, mut front_end) = start();
    add(
        &process,
        r#"{"action":"delay","microseconds":30000,"nth":1}"#,
    );
    let started = Instant::now();
    assert_eq!(front_end.run(&[fill()]).status(), Status::Ok);
    assert!(started.elapsed() >= Duration::from_millis(30));
    clear(&process);
    add(&process, r#"{"action":"delay","microseconds":3600000000}"#);
    let request = front_end.entries(BatchFlags::default(), &[fill()]);
    front_end.submit(BULK_QUEUE_FIRST, &request, 0);
    front_end.rings[QUEUE].kick();
    wait_until_met(&process);
    front_end.frontend.get_vring_base(QUEUE).expect("in time");
    // Nor does it hold up a session's opening, a loss of contents or the end of the process.
    for action in ["session", "renew", "end"] {
        front_end.start_queue(QUEUE);
        clear(&process);
        front_end.open();
        add(
            &process,
            r#"{"action":"delay","on":"entry","microseconds":3600000000}"#,
        );
        let request = front_end.entries(BatchFlags::default(), &[fill()]);
        front_end.submit(BULK_QUEUE_FIRST, &request, 0);
        front_end.rings[QUEUE].kick();
        wait_until_met(&process);
        match action {
            "session" => {
                front_end.frontend.reset_device().expect("in time");
                front_end.reboot();
            }
            "renew" => drop(process.command_ok(r#"{"command":"renew"}"#)),
            _ => break,
        }
        front_end.frontend.get_vring_base(QUEUE).expect("in time");
    }
    drop(process.end());
}

#[test]
fn the_configuration_space_says_what_it_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = folder.path().join("faults");
    std::fs::write(
        &script,
        "# A device of another time.\n\n{\"action\":\"config\",\"field\":\"version_major\",\"value\":2}\n",
    )
    .expect("a script");
    let process = Process::start(
        PROGRAM,
        &["--fault-script", script.to_str().expect("UTF-8")],
    );
    let mut front_end = FrontEnd::start(&process.socket(), 1, &Layout::flat(32 << 20));
    assert_eq!(front_end.config().version_major.get(), 2);
    assert!(front_end.config().validate().is_err());
    clear(&process);
    assert!(front_end.config().validate().is_ok());
    let fields = [
        ("magic", 0u64),
        ("memory_bytes", 0),
        ("page_bytes", 8192),
        ("max_batch_entries", 1),
        ("max_entry_bytes", 4096),
        ("max_urgent_entries", 0),
        ("bulk_queues", 0),
        ("max_batch_bytes", 0),
        ("health", 1),
    ];
    for (field, value) in fields {
        add(
            &process,
            &json!({"action": "config", "field": field, "value": value}).to_string(),
        );
        assert!(front_end.config().validate().is_err(), "{field}");
        clear(&process);
    }
    for field in [
        "version_minor",
        "capabilities",
        "generation",
        "preferred_alignment",
    ] {
        add(
            &process,
            &json!({"action": "config", "field": field, "value": 77}).to_string(),
        );
        assert!(front_end.config().validate().is_ok(), "{field}");
        clear(&process);
    }
}

#[test]
fn it_dies_at_the_step_that_was_named() {
    for (step, record_written, used_written) in [
        ("before-copy", false, false),
        ("after-copy", false, false),
        ("after-record", true, false),
        ("after-used", true, true),
    ] {
        let (mut process, mut front_end) = start();
        add(
            &process,
            &json!({"action": "die", "step": step}).to_string(),
        );
        let request = front_end.entries(BatchFlags::default(), &[fill()]);
        let record = front_end.submit(BULK_QUEUE_FIRST, &request, 0);
        front_end.rings[QUEUE].kick();
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(process.wait().signal(), Some(9), "{step}");
        assert_eq!(
            front_end.guest.load_u8(record) == 1,
            record_written,
            "{step}"
        );
        let used = front_end.rings[QUEUE].poll(&front_end.guest).is_some();
        assert_eq!(used, used_written, "{step}");
    }
}
