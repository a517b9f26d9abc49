// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Guests that break the rules. The device answers, or calls the queue broken, and serves on.

use std::{
    thread,
    time::{Duration, Instant},
};

use hmm_front_end::{DATA, Descriptor, FrontEnd, Layout, Process};
use hmm_protocol::{
    BULK_QUEUE_FIRST, BatchFlags, CONTROL_QUEUE, CopyEntry, EVENT_QUEUE, EventKind, Op, Status,
};
use vhost::{VhostBackend, vhost_user::VhostUserFrontend};

const PROGRAM: &str = env!("CARGO_BIN_EXE_vhost-user-hmm");
const QUEUE: usize = BULK_QUEUE_FIRST as usize;
const REQUEST: u64 = DATA;
const RECORD: u64 = DATA + (1 << 20);

fn start() -> (Process, FrontEnd) {
    let process = Process::start(PROGRAM, &["--memory", "16M", "--log-level", "error"]);
    let mut front_end = FrontEnd::start(&process.socket(), 1, &Layout::default());
    front_end.open();
    (process, front_end)
}

fn fill() -> CopyEntry {
    CopyEntry::new(Op::Fill, 0, 0, 8)
}

/// A request at `REQUEST`; its length.
fn request(front_end: &FrontEnd) -> u32 {
    let request = front_end.entries(BatchFlags::default(), &[fill()]);
    front_end.guest.write(REQUEST, &request);
    front_end.guest.write(RECORD, &[0; 64]);
    request.len() as u32
}

fn status(front_end: &FrontEnd) -> Option<Status> {
    Status::from_wire(front_end.guest.load_u8(RECORD)).filter(|s| *s != Status::NotAttempted)
}

fn serves(front_end: &mut FrontEnd) {
    assert_eq!(front_end.run(&[fill()]).status(), Status::Ok);
    assert_eq!(front_end.run_urgent(&[fill()]).status(), Status::Ok);
}

#[test]
fn a_request_may_come_in_any_pieces() {
    let (_process, mut front_end) = start();
    let len = request(&front_end);
    let pieces: Vec<(u64, u32)> = (0..len).map(|at| (REQUEST + u64::from(at), 1)).collect();
    let record = [
        (RECORD, 1),
        (RECORD + 1, 0),
        (RECORD + 1, 7),
        (RECORD + 8, 56),
    ];
    // 63 descriptors at most here: 60 single bytes and the rest in one.
    let mut readable = pieces[..57].to_vec();
    readable.push((REQUEST + 57, len - 57));
    let ring = &mut front_end.rings[QUEUE];
    ring.submit(&front_end.guest, &readable, &record);
    ring.kick();
    assert_eq!(ring.wait(&front_end.guest).len, 32);
    assert_eq!(status(&front_end), Some(Status::Ok));
    request(&front_end);
    let ring = &mut front_end.rings[QUEUE];
    ring.submit_indirect(&front_end.guest, &readable, &record);
    ring.kick();
    assert_eq!(ring.wait(&front_end.guest).len, 32);
    assert_eq!(status(&front_end), Some(Status::Ok));
    serves(&mut front_end);
}

#[test]
fn no_room_for_the_record_means_length_zero() {
    let (process, mut front_end) = start();
    let len = request(&front_end);
    for writable in [&[][..], &[(RECORD, 31)], &[(RECORD, 8), (RECORD + 64, 23)]] {
        let ring = &mut front_end.rings[QUEUE];
        ring.submit(&front_end.guest, &[(REQUEST, len)], writable);
        ring.kick();
        assert_eq!(ring.wait(&front_end.guest).len, 0);
        assert_eq!(status(&front_end), None);
    }
    // Nor is a record outside the memory table written.
    for address in [1 << 40, u64::MAX - 8, (48 << 20) - 16] {
        let ring = &mut front_end.rings[QUEUE];
        ring.submit(&front_end.guest, &[(REQUEST, len)], &[(address, 32)]);
        ring.kick();
        assert_eq!(ring.wait(&front_end.guest).len, 0);
    }
    let stats = process.command_ok(r#"{"command":"stats"}"#);
    assert_eq!(stats["stats"]["queues"]["bulk0"]["without_record"], 6);
    serves(&mut front_end);
}

#[test]
fn malformed_chains_are_answered() {
    let (process, mut front_end) = start();
    let len = request(&front_end);
    let room = (RECORD, 32);
    type Case<'a> = (&'a str, Vec<(u64, u32)>, Vec<(u64, u32)>, Status);
    let cases: [Case<'_>; 5] = [
        (
            "a request outside the table",
            vec![(1 << 40, len)],
            vec![room],
            Status::BadGuestAddress,
        ),
        (
            "a request that wraps",
            vec![(u64::MAX - 8, len)],
            vec![room],
            Status::BadGuestAddress,
        ),
        (
            "a giant request",
            vec![(0, 1 << 31)],
            vec![room],
            Status::BadLength,
        ),
        ("no request", vec![], vec![room], Status::BadLength),
        (
            "65 buffers",
            vec![(REQUEST, 1); 64],
            vec![room],
            Status::BadLength,
        ),
    ];
    for (why, readable, writable, expected) in cases {
        request(&front_end);
        let ring = &mut front_end.rings[QUEUE];
        ring.submit(&front_end.guest, &readable, &writable);
        ring.kick();
        let used = ring.wait(&front_end.guest);
        match status(&front_end) {
            Some(found) => assert_eq!((used.len, found), (32, expected), "{why}"),
            // The record was the 65th buffer.
            None => assert_eq!((used.len, why), (0, "65 buffers")),
        }
        serves(&mut front_end);
    }
    let stats = process.command_ok(r#"{"command":"stats"}"#);
    assert_ne!(stats["stats"]["queues"]["bulk0"]["malformed_chains"], 0);
}

#[test]
fn readable_behind_writable_is_refused() {
    let (_process, mut front_end) = start();
    let len = request(&front_end);
    let ring = &mut front_end.rings[QUEUE];
    let table = ring.descriptors();
    let guest = &front_end.guest;
    let writable = Descriptor {
        address: RECORD,
        len: 32,
        flags: Descriptor::NEXT | Descriptor::WRITE,
        next: 201,
    };
    let readable = Descriptor {
        address: REQUEST,
        len,
        ..Descriptor::default()
    };
    writable.store(guest, table, 200);
    readable.store(guest, table, 201);
    ring.make_available(guest, 200);
    ring.kick();
    assert_eq!(ring.wait(guest).len, 32);
    assert_eq!(status(&front_end), Some(Status::BadLength));
    serves(&mut front_end);
}

#[test]
fn loops_and_wild_links_end() {
    let (_process, mut front_end) = start();
    let len = request(&front_end);
    let base = Descriptor {
        address: REQUEST,
        len,
        flags: Descriptor::NEXT,
        next: 0,
    };
    let table = front_end.rings[QUEUE].descriptors();
    let indirect = |address, len| Descriptor {
        address,
        len,
        flags: Descriptor::INDIRECT,
        next: 0,
    };
    let nested_at = DATA + (2 << 20);
    // A table whose only entry is a table again.
    indirect(nested_at, 16).store(&front_end.guest, nested_at, 0);
    let cases = [
        ("to itself", Descriptor { next: 200, ..base }),
        ("beyond the table", Descriptor { next: 9999, ..base }),
        (
            "to itself, writable",
            Descriptor {
                next: 200,
                flags: Descriptor::NEXT | Descriptor::WRITE,
                address: RECORD,
                len: 4,
            },
        ),
        (
            "more than 4 GiB",
            Descriptor {
                next: 200,
                len: u32::MAX,
                ..base
            },
        ),
        ("a nested table", indirect(nested_at, 16)),
        ("a table of odd length", indirect(nested_at, 17)),
        ("an empty table", indirect(nested_at, 0)),
        ("a giant table", indirect(nested_at, u32::MAX - 15)),
        ("a table nowhere", indirect(1 << 50, 16)),
        ("a table that wraps", indirect(u64::MAX - 15, 32)),
    ];
    for (why, descriptor) in cases {
        let ring = &mut front_end.rings[QUEUE];
        descriptor.store(&front_end.guest, table, 200);
        ring.make_available(&front_end.guest, 200);
        ring.kick();
        let used = ring.wait(&front_end.guest);
        assert_eq!(used.head, 200, "{why}");
        assert!(used.len == 0 || used.len == 32, "{why}: {used:?}");
        serves(&mut front_end);
    }
}

/// Breaks the bulk queue with `act`; it must be reported once, others go on, and a restart heals it.
fn breaks(front_end: &mut FrontEnd, why: &str, act: impl Fn(&mut FrontEnd)) {
    let at = front_end.post_event_buffer(0);
    act(front_end);
    front_end.rings[QUEUE].kick();
    let event = front_end.event(at);
    assert_eq!(event.kind, EventKind::QueueBroken as u8, "{why}");
    assert_eq!(event.queue.get(), BULK_QUEUE_FIRST, "{why}");
    for _ in 0..10 {
        front_end.rings[QUEUE].kick();
    }
    assert_eq!(
        front_end.run_urgent(&[fill()]).status(),
        Status::Ok,
        "{why}"
    );
    front_end.frontend.get_vring_base(QUEUE).expect("base");
    front_end.start_queue(QUEUE);
    assert_eq!(front_end.run(&[fill()]).status(), Status::Ok, "{why}");
}

#[test]
fn a_queue_that_makes_no_sense_is_broken_and_heals() {
    let (process, mut front_end) = start();
    breaks(&mut front_end, "an index ahead of the ring", |front_end| {
        let ring = &mut front_end.rings[QUEUE];
        let index = ring.next_avail().wrapping_add(257);
        ring.set_available_index(&front_end.guest, index);
    });
    breaks(&mut front_end, "an index behind", |front_end| {
        let ring = &mut front_end.rings[QUEUE];
        let index = ring.next_avail().wrapping_sub(1);
        ring.set_available_index(&front_end.guest, index);
    });
    for head in [256, 0xffff] {
        breaks(&mut front_end, "a head that does not exist", |front_end| {
            front_end.rings[QUEUE].make_available(&front_end.guest, head);
        });
    }
    let stats = process.command_ok(r#"{"command":"stats"}"#);
    assert_eq!(stats["stats"]["queues"]["bulk0"]["broken"], 4);
}

#[test]
fn a_ring_that_leaves_the_memory_table_is_broken() {
    let (_process, mut front_end) = start();
    // The bulk queue's ring is moved to the third region, which then goes.
    let region = front_end.guest.regions()[2];
    let at = 1u64 << 32;
    let mut ring = hmm_front_end::Ring::new(at, 256, true);
    front_end.frontend.get_vring_base(QUEUE).expect("base");
    std::mem::swap(&mut front_end.rings[QUEUE], &mut ring);
    front_end.start_queue(QUEUE);
    assert_eq!(front_end.run(&[fill()]).status(), Status::Ok);
    let event_at = front_end.post_event_buffer(0);
    front_end
        .frontend
        .remove_mem_region(&region)
        .expect("removed");
    front_end.rings[QUEUE].kick();
    let event = front_end.event(event_at);
    assert_eq!(event.kind, EventKind::QueueBroken as u8);
    assert_eq!(front_end.run_urgent(&[fill()]).status(), Status::Ok);
    front_end.frontend.add_mem_region(&region).expect("added");
    front_end.frontend.get_vring_base(QUEUE).expect("base");
    front_end.start_queue(QUEUE);
    assert_eq!(front_end.run(&[fill()]).status(), Status::Ok);
}

#[test]
fn bad_chains_on_control_and_event_queues_are_given_back() {
    let (_process, mut front_end) = start();
    for queue in [CONTROL_QUEUE, EVENT_QUEUE] {
        let ring = &mut front_end.rings[usize::from(queue)];
        ring.submit(&front_end.guest, &[(REQUEST, 32)], &[(RECORD, 31)]);
        ring.submit(&front_end.guest, &[(REQUEST, 32)], &[(1 << 40, 32)]);
        ring.kick();
    }
    for _ in 0..2 {
        let ring = &mut front_end.rings[usize::from(CONTROL_QUEUE)];
        assert_eq!(ring.wait(&front_end.guest).len, 0);
    }
    // The event queue looks at its buffers when there is something to tell.
    breaks_without_buffer(&mut front_end);
    for _ in 0..2 {
        let ring = &mut front_end.rings[usize::from(EVENT_QUEUE)];
        assert_eq!(ring.wait(&front_end.guest).len, 0);
    }
    front_end.open();
    serves(&mut front_end);
}

#[test]
fn what_a_broken_queue_was_given_back_is_not_another_queues() {
    let (process, mut front_end) = start();
    // Two events wait, and then there is a buffer for one, and nonsense behind it.
    for _ in 0..2 {
        process.command_ok(
            r#"{"command":"fault-add","fault":{"action":"poison","start":0,"length":8}}"#,
        );
    }
    let events = usize::from(EVENT_QUEUE);
    let FrontEnd { guest, rings, .. } = &mut front_end;
    rings[events].submit(guest, &[], &[(RECORD, 32)]);
    let beyond = rings[events].size();
    rings[events].make_available(guest, beyond);
    rings[events].kick();
    rings[events].wait(guest);
    let control = usize::from(CONTROL_QUEUE);
    let before = rings[control].used_index(guest);
    for round in 1..=3 {
        front_end.open();
        let after = front_end.rings[control].used_index(&front_end.guest);
        assert_eq!(after.wrapping_sub(before), round, "one answer a request");
    }
}

fn breaks_without_buffer(front_end: &mut FrontEnd) {
    front_end.rings[QUEUE].make_available(&front_end.guest, 999);
    front_end.rings[QUEUE].kick();
    let ring = &front_end.rings[usize::from(EVENT_QUEUE)];
    let started = Instant::now();
    while ring.used_index(&front_end.guest) < 2 {
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "buffers are kept"
        );
        thread::sleep(Duration::from_millis(1));
    }
    front_end.frontend.get_vring_base(QUEUE).expect("base");
    front_end.start_queue(QUEUE);
}

#[test]
fn a_request_that_changes_while_it_is_read_is_one_or_the_other() {
    let (_process, mut front_end) = start();
    // Two device addresses, one good and one far outside: whichever is read is also the one that is checked.
    let entry = CopyEntry::new(Op::ToSystem, DATA + (4 << 20), 0, 4096);
    let request = front_end.entries(BatchFlags::STATUS_ARRAY, &[entry; 64]);
    let record = front_end.submit(BULK_QUEUE_FIRST, &request, 64);
    front_end.rings[QUEUE].kick();
    front_end.answer(BULK_QUEUE_FIRST, record, 64);
    let address_at = |at: u64, index: u64| at + 32 + 32 * index + 16;
    for round in 0..300 {
        let record = front_end.submit(BULK_QUEUE_FIRST, &request, 64);
        let at = record + 8192 - (128 << 10);
        front_end.rings[QUEUE].kick();
        for index in 0..64 {
            front_end
                .guest
                .write(address_at(at, index), &(u64::MAX - 4095).to_le_bytes());
        }
        let answer = front_end.answer(BULK_QUEUE_FIRST, record, 64);
        for index in 0..64 {
            let status = answer.entry(index);
            assert!(
                matches!(status, Status::Ok | Status::BadDeviceRange),
                "round {round}: {status:?}"
            );
        }
    }
    serves(&mut front_end);
}
