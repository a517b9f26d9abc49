// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Kicks and signals: as few as the other side asks for, and all of them counted.

use std::time::{Duration, Instant};

use hmm_front_end::{DATA, FrontEnd, Layout, MOST_QUEUES, Process};
use hmm_protocol::{BULK_QUEUE_FIRST, BatchFlags, CopyEntry, Op, Status, URGENT_QUEUE};

const PROGRAM: &str = env!("CARGO_BIN_EXE_vhost-user-hmm");
const QUEUE: usize = BULK_QUEUE_FIRST as usize;
const HANG: Duration = Duration::from_secs(60);

fn start(arguments: &[&str]) -> (Process, FrontEnd) {
    let process = Process::start(PROGRAM, &[&["--memory", "16M"], arguments].concat());
    let mut front_end = FrontEnd::start(&process.socket(), 1, &Layout::default());
    front_end.open();
    (process, front_end)
}

fn fill() -> CopyEntry {
    CopyEntry::new(Op::Fill, 0, 0, 8)
}

/// A counter of the bulk queue.
fn counted(process: &Process, name: &str) -> u64 {
    let stats = process.command_ok(r#"{"command":"stats"}"#);
    stats["stats"]["queues"]["bulk0"][name]
        .as_u64()
        .unwrap_or_else(|| panic!("no {name} in {stats}"))
}

fn wait_until(mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < HANG, "it does not come");
        std::thread::sleep(Duration::from_micros(50));
    }
}

#[test]
fn a_set_of_completions_is_one_update_and_one_signal() {
    const BATCHES: u16 = 3;
    // A worker that is kept from its processor must not publish sooner for that.
    let (process, mut front_end) = start(&["--completion-us", "60000000"]);
    let request = front_end.entries(BatchFlags::default(), &[fill()]);
    front_end.guest.write(DATA, &request);
    // All batches are there when the worker begins.
    process.command_ok(r#"{"command":"pause"}"#);
    process.command_ok(r#"{"command":"stats-reset"}"#);
    let FrontEnd { guest, rings, .. } = &mut front_end;
    let ring = &mut rings[QUEUE];
    let before = ring.used_index(guest);
    // A signal for the first of them, whichever update has it.
    ring.want_signal_at(guest, before);
    for index in 0..BATCHES {
        let record = DATA + 4096 + u64::from(index) * 64;
        ring.submit(guest, &[(DATA, request.len() as u32)], &[(record, 32)]);
    }
    process.command_ok(r#"{"command":"resume"}"#);
    ring.wait_for_signal();
    assert_eq!(ring.used_index(guest), before.wrapping_add(BATCHES));
    // The worker has counted whatever it did once it is paused.
    process.command_ok(r#"{"command":"pause"}"#);
    assert_eq!(counted(&process, "signals_sent"), 1);
    assert_eq!(counted(&process, "signals_suppressed"), 0);
    assert!(ring.call.read().is_err(), "there was a second signal");
    for _ in 0..BATCHES {
        ring.wait(guest);
    }
}

#[test]
fn completions_are_published_one_by_one_if_they_may_not_wait() {
    const BATCHES: u16 = 3;
    let (process, mut front_end) = start(&["--completion-us", "0"]);
    let request = front_end.entries(BatchFlags::default(), &[fill()]);
    front_end.guest.write(DATA, &request);
    process.command_ok(r#"{"command":"pause"}"#);
    process.command_ok(r#"{"command":"stats-reset"}"#);
    let FrontEnd { guest, rings, .. } = &mut front_end;
    let ring = &mut rings[QUEUE];
    let before = ring.used_index(guest);
    ring.want_signal_at(guest, before);
    for index in 0..BATCHES {
        let record = DATA + 4096 + u64::from(index) * 64;
        ring.submit(guest, &[(DATA, request.len() as u32)], &[(record, 32)]);
    }
    process.command_ok(r#"{"command":"resume"}"#);
    wait_until(|| ring.used_index(guest) == before.wrapping_add(BATCHES));
    process.command_ok(r#"{"command":"pause"}"#);
    // The driver wants to know of the first.
    assert_eq!(counted(&process, "signals_sent"), 1);
    assert_eq!(
        counted(&process, "signals_suppressed"),
        u64::from(BATCHES) - 1
    );
}

#[test]
fn a_worker_that_works_wants_no_kicks() {
    let (process, mut front_end) = start(&[]);
    process.command_ok(
        r#"{"command":"fault-add","fault":{"action":"delay","microseconds":3600000000,"nth":1}}"#,
    );
    process.command_ok(r#"{"command":"stats-reset"}"#);
    let request = front_end.entries(BatchFlags::default(), &[fill()]);
    let first = front_end.submit(BULK_QUEUE_FIRST, &request, 0);
    front_end.rings[QUEUE].kick();
    wait_until(|| {
        let list = process.command_ok(r#"{"command":"fault-list"}"#);
        list["faults"][0]["seen"] == 1
    });
    // The worker stays within the first batch until the gate is wanted.
    let before = front_end.rings[QUEUE].next_avail();
    let second = front_end.submit(BULK_QUEUE_FIRST, &request, 0);
    let kicked = front_end.rings[QUEUE].kick_if_wanted(&front_end.guest, before);
    assert!(!kicked, "a worker that is busy asked for a kick");
    assert_eq!(front_end.guest.load_u8(first), 0);
    // A delay ends when the gate is wanted.
    for command in ["fault-clear", "pause", "resume"] {
        process.command_ok(&format!(r#"{{"command":"{command}"}}"#));
    }
    for record in [first, second] {
        let answer = front_end.answer(BULK_QUEUE_FIRST, record, 0);
        assert_eq!(answer.status(), Status::Ok);
    }
    // The library makes one of its own when a queue is enabled.
    assert!(counted(&process, "kicks") > 0);
}

#[test]
fn no_queue_waits_for_what_another_has_seen() {
    let (process, mut front_end) = start(&[]);
    let delay = |process: &Process, queue: &str| {
        let stats = process.command_ok(r#"{"command":"stats"}"#);
        let delay = &stats["stats"]["queues"][queue]["delay"];
        (delay["count"].as_u64(), delay["sum_ns"].as_u64())
    };
    // One at a time: each is started when it is seen. Control and urgent queue share a worker, and so do their positions.
    assert_eq!(front_end.run_urgent(&[fill()]).status(), Status::Ok);
    assert_eq!(front_end.run(&[fill()]).status(), Status::Ok);
    for queue in ["control", "urgent", "bulk0"] {
        assert_eq!(delay(&process, queue), (Some(1), Some(0)), "{queue}");
    }
    // A queue that is set up again counts from the start.
    front_end.reboot();
    front_end.open();
    assert_eq!(front_end.run_urgent(&[fill()]).status(), Status::Ok);
    assert_eq!(front_end.run(&[fill()]).status(), Status::Ok);
    for queue in ["control", "urgent", "bulk0"] {
        assert_eq!(delay(&process, queue), (Some(2), Some(0)), "{queue}");
    }
}

#[test]
fn workers_look_for_work_as_long_as_they_are_told() {
    let several = std::thread::available_parallelism().is_ok_and(|count| count.get() > 1);
    for (time, looks) in [("0", false), ("2000", several)] {
        let (process, mut front_end) = start(&["--poll-us", time]);
        for _ in 0..20 {
            assert_eq!(front_end.run(&[fill()]).status(), Status::Ok);
        }
        let found = || counted(&process, "polls_hit") + counted(&process, "polls_missed");
        if looks {
            // The last one may be looking still.
            wait_until(|| found() > 0);
        } else {
            assert_eq!(found(), 0, "nobody was to look");
        }
    }
}

#[test]
fn without_event_idx_signals_follow_the_flag() {
    let process = Process::start(PROGRAM, &["--memory", "16M"]);
    let frontend =
        vhost::vhost_user::Frontend::connect(process.socket(), MOST_QUEUES).expect("connect");
    let mask = !hmm_front_end::EVENT_IDX;
    let mut front_end = FrontEnd::start_on(frontend, 1, &Layout::default(), mask);
    front_end.open();
    let ring = usize::from(URGENT_QUEUE);
    assert_eq!(front_end.run_urgent(&[fill()]).status(), Status::Ok);
    front_end.rings[ring].wait_for_signal();
    // VRING_AVAIL_F_NO_INTERRUPT
    let flags_at = front_end.rings[ring].avail();
    front_end.guest.store_u16(flags_at, 1);
    let sent = |process: &Process| {
        process.command_ok(r#"{"command":"stats"}"#)["stats"]["queues"]["urgent"]["signals_sent"]
            .as_u64()
            .expect("a number")
    };
    let before = sent(&process);
    for _ in 0..10 {
        assert_eq!(front_end.run_urgent(&[fill()]).status(), Status::Ok);
    }
    assert_eq!(sent(&process), before);
}
