// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Several queues: fences between them, and urgent batches beside bulk ones.

use std::time::{Duration, Instant};

use hmm_front_end::{DATA, FrontEnd, Layout, Process, pattern};
use hmm_protocol::{BULK_QUEUE_FIRST, BatchFlags, CopyEntry, Op, Status, URGENT_QUEUE};
use vhost::VhostBackend;

const PROGRAM: &str = env!("CARGO_BIN_EXE_vhost-user-hmm");
/// Longer than anything takes on a busy machine; only a hang comes so far.
const HANG: Duration = Duration::from_secs(60);
const BULK0: u16 = BULK_QUEUE_FIRST;
const BULK1: u16 = BULK_QUEUE_FIRST + 1;

fn start(bulk_queues: u16) -> (Process, FrontEnd) {
    let count = bulk_queues.to_string();
    let process = Process::start(PROGRAM, &["--memory", "64M", "--bulk-queues", &count]);
    let mut front_end = FrontEnd::start(&process.socket(), bulk_queues, &Layout::default());
    front_end.open();
    (process, front_end)
}

fn fault(process: &Process, fault: &str) {
    process.command_ok(&format!(r#"{{"command":"fault-add","fault":{fault}}}"#));
}

fn fill() -> CopyEntry {
    CopyEntry::new(Op::Fill, 0, 0, 8)
}

/// Submits a batch and returns where its record will be.
fn submit(front_end: &mut FrontEnd, queue: u16, flags: BatchFlags, entries: &[CopyEntry]) -> u64 {
    let request = front_end.entries(flags, entries);
    let record = front_end.submit(queue, &request, 0);
    front_end.rings[usize::from(queue)].kick();
    record
}

#[test]
fn every_queue_works() {
    let (_process, mut front_end) = start(16);
    assert_eq!(front_end.config().bulk_queues.get(), 16);
    for queue in URGENT_QUEUE..BULK_QUEUE_FIRST + 16 {
        let bytes = pattern(u64::from(queue), 4096);
        front_end.guest.write(DATA, &bytes);
        let there = CopyEntry::new(Op::ToDevice, DATA, 4096, 4096);
        let back = CopyEntry::new(Op::ToSystem, DATA + 4096, 4096, 4096);
        let request = front_end.entries(BatchFlags::ORDERED, &[there, back]);
        assert_eq!(front_end.execute_on(queue, &request).status(), Status::Ok);
        assert_eq!(
            front_end.guest.read(DATA + 4096, 4096),
            bytes,
            "queue {queue}"
        );
    }
}

#[test]
fn a_fence_waits_for_other_queues() {
    let (process, mut front_end) = start(2);
    for fenced in [BULK1, URGENT_QUEUE] {
        fault(
            &process,
            r#"{"action":"delay","microseconds":100000,"queue":"bulk0","nth":1}"#,
        );
        let slow = submit(&mut front_end, BULK0, BatchFlags::default(), &[fill()]);
        let fence = submit(&mut front_end, fenced, BatchFlags::FENCE, &[fill()]);
        let answer = front_end.answer(fenced, fence, 0);
        assert_eq!(answer.status(), Status::Ok);
        assert_eq!(front_end.guest.load_u8(slow), 1, "the fence did not wait");
        front_end.answer(BULK0, slow, 0);
        process.command_ok(r#"{"command":"fault-clear"}"#);
    }
}

#[test]
fn a_batch_without_a_fence_does_not_wait() {
    let (process, mut front_end) = start(2);
    fault(&process, r#"{"action":"stall","queue":"bulk0"}"#);
    let held = submit(&mut front_end, BULK0, BatchFlags::default(), &[fill()]);
    let free = submit(&mut front_end, BULK1, BatchFlags::default(), &[fill()]);
    assert_eq!(front_end.answer(BULK1, free, 0).status(), Status::Ok);
    assert_eq!(front_end.guest.load_u8(held), 0);
}

#[test]
fn fences_that_meet_do_not_wait_for_each_other() {
    let (_process, mut front_end) = start(2);
    let queues = [URGENT_QUEUE, BULK0, BULK1];
    for round in 0..200 {
        let records: Vec<u64> = queues
            .iter()
            .map(|queue| submit(&mut front_end, *queue, BatchFlags::FENCE, &[fill()]))
            .collect();
        for (queue, record) in queues.iter().zip(records) {
            let answer = front_end.answer(*queue, record, 0);
            assert_eq!(answer.status(), Status::Ok, "round {round}");
        }
    }
}

#[test]
fn a_fence_that_waits_does_not_hold_up_who_stops_its_queue() {
    let (process, mut front_end) = start(2);
    fault(&process, r#"{"action":"stall","queue":"bulk0"}"#);
    let held = submit(&mut front_end, BULK0, BatchFlags::default(), &[fill()]);
    let fence = submit(&mut front_end, BULK1, BatchFlags::FENCE, &[fill()]);
    std::thread::sleep(Duration::from_millis(20));
    let base = front_end
        .frontend
        .get_vring_base(usize::from(BULK1))
        .expect("in time");
    assert_eq!(base, 0, "the fence stays available");
    assert_eq!(front_end.guest.load_u8(fence), 0);
    process.command_ok(r#"{"command":"fault-clear"}"#);
    assert_eq!(front_end.answer(BULK0, held, 0).status(), Status::Ok);
    // Set up again where it was, the queue goes on with the fence.
    let ring = &front_end.rings[usize::from(BULK1)];
    let index = usize::from(BULK1);
    let frontend = &front_end.frontend;
    frontend.set_vring_base(index, 0).expect("base");
    frontend
        .set_vring_addr(index, &ring.config(&front_end.guest))
        .expect("addresses");
    frontend.set_vring_call(index, &ring.call).expect("call");
    frontend.set_vring_kick(index, &ring.kick).expect("kick");
    assert_eq!(front_end.answer(BULK1, fence, 0).status(), Status::Ok);
    // It was begun twice, but it is one batch.
    let stats = process.command_ok(r#"{"command":"stats"}"#);
    let delays = &stats["stats"]["queues"]["bulk1"]["delay"]["count"];
    assert_eq!(delays.as_u64(), Some(1));
}

#[test]
fn urgent_batches_overtake_a_bulk_batch_that_runs() {
    let (process, mut front_end) = start(1);
    fault(
        &process,
        r#"{"action":"delay","on":"entry","queue":"bulk","microseconds":200000}"#,
    );
    let entries = [CopyEntry::new(Op::ToDevice, DATA, 0, 2 << 20); 32];
    let bulk = submit(&mut front_end, BULK0, BatchFlags::default(), &entries);
    let started = Instant::now();
    while process.command_ok(r#"{"command":"fault-list"}"#)["faults"][0]["seen"] == 0 {
        assert!(started.elapsed() < HANG, "the bulk batch is not started");
    }
    for _ in 0..10 {
        assert_eq!(front_end.run_urgent(&[fill()]).status(), Status::Ok);
    }
    assert_eq!(
        front_end.guest.load_u8(bulk),
        0,
        "urgent ones came after it"
    );
    front_end
        .frontend
        .get_vring_base(usize::from(BULK0))
        .expect("in time");
    assert_eq!(front_end.guest.load_u8(bulk), 1, "stopped when it was done");
}

#[test]
fn a_modelled_link_takes_its_time() {
    let link = "latency=1ms,to_device.bandwidth=100M,to_system.bandwidth=1T";
    let process = Process::start(PROGRAM, &["--memory", "16M", "--link", link]);
    let mut front_end = FrontEnd::start(&process.socket(), 1, &Layout::default());
    front_end.open();
    let mut nanoseconds = |op, len| {
        let answer = front_end.run(&[CopyEntry::new(op, DATA, 0, len)]);
        assert_eq!(answer.status(), Status::Ok);
        answer.completion.device_ns.get()
    };
    // 2 MiB at 100 MB/s take 21 ms; the way back takes the latency; a fill does not use the link.
    assert!(nanoseconds(Op::ToDevice, 2 << 20) >= 21_900_000);
    assert!(nanoseconds(Op::ToSystem, 2 << 20) >= 1_000_000);
    let answer = process.command_ok(r#"{"command":"stats"}"#);
    let stats = &answer["stats"];
    assert_eq!(stats["service_kind"], "modelled");
    let sum = |histogram: &str| stats["queues"]["bulk0"][histogram]["sum_ns"].as_u64();
    assert!(sum("service") > sum("copy"), "{stats}");
    let info = process.command_ok(r#"{"command":"info"}"#);
    assert_eq!(info["link"]["to_device"]["latency_ns"], 1_000_000);
}

#[test]
fn the_trace_has_every_batch_with_its_cookie() {
    let folder = tempfile::tempdir().expect("a folder");
    let (trace, stats) = (folder.path().join("trace"), folder.path().join("stats"));
    let text = |path: &std::path::Path| path.to_str().expect("UTF-8").to_owned();
    let process = Process::start(
        PROGRAM,
        &["--trace", &text(&trace), "--stats-json", &text(&stats)],
    );
    let mut front_end = FrontEnd::start(&process.socket(), 1, &Layout::flat(32 << 20));
    front_end.open();
    let mut cookies = Vec::new();
    for round in 0..20 {
        if round == 10 {
            process.command_ok(r#"{"command":"trace","on":false}"#);
        }
        let request = front_end.entries(BatchFlags::default(), &[fill()]);
        let cookie = front_end.execute(&request).completion.cookie.get();
        if round < 10 {
            cookies.push(format!("{cookie:#x}"));
        }
    }
    drop(front_end);
    drop(process.end());
    let events: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&trace).expect("a trace")).expect("JSON");
    let batches: Vec<&serde_json::Value> = events
        .as_array()
        .expect("an array")
        .iter()
        .filter(|event| event["ph"] == "X")
        .collect();
    let found: Vec<&str> = batches
        .iter()
        .map(|event| event["args"]["cookie"].as_str().expect("a cookie"))
        .collect();
    assert_eq!(found, cookies);
    assert!(
        batches
            .iter()
            .all(|event| event["name"] == "fill" && event["tid"] == 3)
    );
    let stats: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&stats).expect("statistics")).expect("JSON");
    assert_eq!(stats["queues"]["bulk0"]["results"]["ok"], 20);
    let process = Process::start(PROGRAM, &[]);
    assert_eq!(
        process.command(r#"{"command":"trace","on":true}"#)["ok"],
        false
    );
}
