// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Requests that take long, and queues that are never empty, hold up neither the front end nor the other queues.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use hmm_front_end::{DATA, FrontEnd, Guest, Layout, Process, Ring, pattern};
use hmm_protocol::{
    BatchFlags, CONTROL_BYTES, CONTROL_QUEUE, ControlKind, ControlReply, ControlRequest, CopyEntry,
    Op, Status, URGENT_QUEUE,
};
use vhost::vhost_user::VhostUserFrontend;
use zerocopy::{FromBytes, IntoBytes};

const PROGRAM: &str = env!("CARGO_BIN_EXE_vhost-user-hmm");
const CONTROL: usize = CONTROL_QUEUE as usize;
const REQUEST: u64 = DATA;
const REPLY: u64 = DATA + 4096;
const BATCH: u64 = DATA + 8192;
/// Requests after which a test gives up.
const MOST_REQUESTS: u32 = 2000;
/// Large enough for a scrub that takes many slices.
const LARGE: u64 = 512 << 20;
/// What a request that holds everything up can let through, at most: one round before the device has begun, one that waits
/// for the whole request, and one behind it.
const HELD_UP: u32 = 3;
/// How often a request is made again, because a loaded machine may run the device alone while it is executed.
const MOST_ATTEMPTS: u32 = 40;

fn start(arguments: &[&str]) -> (Process, FrontEnd) {
    let process = Process::start(PROGRAM, arguments);
    let mut front_end = FrontEnd::start(&process.socket(), 1, &Layout::default());
    front_end.open();
    (process, front_end)
}

/// A device whose sessions are opened slowly enough to fill the control ring with such requests.
fn slow() -> (Process, FrontEnd, Vec<u8>) {
    let (process, front_end) = start(&["--memory", "4M", "--prefault"]);
    let open = front_end.session_request(open());
    (process, front_end, open)
}

fn open() -> ControlRequest {
    ControlRequest::new(ControlKind::SessionOpen, 0, 5, 0, 0)
}

fn large() -> (Process, FrontEnd) {
    start(&["--memory", "512M", "--prefault"])
}

fn fill() -> CopyEntry {
    CopyEntry::new(Op::Fill, 0, 0, 8)
}

/// Keeps the control ring full of requests that take about a millisecond each: every element of the available ring names the same chain, so that to feed it is
/// to move the index.
struct Feeder<'a> {
    guest: &'a Guest,
    ring: &'a mut Ring,
    used: u16,
    answered: u32,
}

impl<'a> Feeder<'a> {
    fn new(guest: &'a Guest, ring: &'a mut Ring, request: &[u8]) -> Self {
        guest.write(REQUEST, request);
        let reply = (REPLY, CONTROL_BYTES as u32);
        ring.submit(guest, &[(REQUEST, request.len() as u32)], &[reply]);
        let slot = |index: u16| ring.avail() + 4 + 2 * u64::from(index % ring.size());
        let head = guest.load_u16(slot(ring.next_avail().wrapping_sub(1)));
        for index in 0..ring.size() {
            guest.store_u16(slot(index), head);
        }
        let used = ring.used_index(guest);
        Self {
            guest,
            ring,
            used,
            answered: 0,
        }
    }

    fn feed(&mut self) {
        let used = self.ring.used_index(self.guest);
        self.answered += u32::from(used.wrapping_sub(self.used));
        self.used = used;
        let full = used.wrapping_add(self.ring.size() - 1);
        self.ring.set_available_index(self.guest, full);
    }
}

#[test]
fn a_control_ring_that_is_never_empty_does_not_hold_up_the_memory_table() {
    let (_process, mut front_end, open) = slow();
    let region = front_end.guest.regions()[2];
    let FrontEnd {
        frontend,
        guest,
        rings,
        ..
    } = &mut front_end;
    let (fed, changed) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        let (guest, ring) = (&*guest, &mut rings[CONTROL]);
        let (fed, changed) = (&fed, &changed);
        scope.spawn(move || {
            let mut feeder = Feeder::new(guest, ring, &open);
            feeder.ring.kick();
            while feeder.answered < MOST_REQUESTS && !changed.load(Ordering::Acquire) {
                feeder.feed();
            }
            fed.store(true, Ordering::Release);
        });
        for _ in 0..5 {
            frontend.remove_mem_region(&region).expect("removed");
            frontend.add_mem_region(&region).expect("added");
        }
        assert!(!fed.load(Ordering::Acquire), "it waited for the guest");
        changed.store(true, Ordering::Release);
    });
}

#[test]
fn a_control_ring_that_is_never_empty_leaves_the_urgent_queue_its_turn() {
    let (_process, mut front_end, open) = slow();
    let urgent = usize::from(URGENT_QUEUE);
    let request = front_end.entries(BatchFlags::default(), &[fill()]);
    let FrontEnd { guest, rings, .. } = &mut front_end;
    let before = rings[urgent].used_index(guest);
    let (others, urgent) = rings.split_at_mut(urgent);
    let mut feeder = Feeder::new(guest, &mut others[CONTROL], &open);
    feeder.feed();
    feeder.ring.kick();
    while feeder.answered == 0 {
        feeder.feed();
    }
    // The worker is at it, and sees no other kick before it has had enough.
    guest.write(BATCH, &request);
    let record = (BATCH + 4096, 32);
    urgent[0].submit(guest, &[(BATCH, request.len() as u32)], &[record]);
    urgent[0].kick();
    while urgent[0].used_index(guest) == before {
        feeder.feed();
        assert!(feeder.answered < MOST_REQUESTS, "the urgent queue starves");
    }
}

/// Makes a request that takes long, and counts how often the memory table and the configuration space can be had before
/// it is answered.
fn meanwhile(front_end: &mut FrontEnd, request: &[u8]) -> (u32, ControlReply) {
    let region = front_end.guest.regions()[2];
    let FrontEnd {
        guest,
        rings,
        frontend,
        ..
    } = front_end;
    let ring = &mut rings[CONTROL];
    guest.write(REQUEST, request);
    let before = ring.used_index(guest);
    ring.submit(
        guest,
        &[(REQUEST, request.len() as u32)],
        &[(REPLY, CONTROL_BYTES as u32)],
    );
    ring.kick();
    let mut rounds = 0;
    while ring.used_index(guest) == before {
        frontend.remove_mem_region(&region).expect("removed");
        frontend.add_mem_region(&region).expect("added");
        rounds += 1;
    }
    ring.wait(guest);
    let reply = guest.read(REPLY, CONTROL_BYTES);
    (
        rounds,
        ControlReply::read_from_bytes(&reply).expect("a reply"),
    )
}

fn put(front_end: &mut FrontEnd, at: u64) {
    front_end.guest.write(DATA, &pattern(at, 4096));
    let entry = CopyEntry::new(Op::ToDevice, DATA, at, 4096);
    assert_eq!(front_end.run(&[entry]).status(), Status::Ok);
}

/// Writes to every page, so that giving them up takes its time.
fn put_everywhere(front_end: &mut FrontEnd) {
    const EXTENT: u64 = 2 << 20;
    for start in (0..LARGE).step_by(8 * EXTENT as usize) {
        let entries: Vec<CopyEntry> = (0..8)
            .map(|index| CopyEntry::new(Op::Fill, 1, start + index * EXTENT, EXTENT as u32))
            .collect();
        assert_eq!(front_end.run(&entries).status(), Status::Ok);
    }
    for at in [0, LARGE - 4096] {
        put(front_end, at);
    }
}

fn is_zero(front_end: &mut FrontEnd, at: u64) -> bool {
    front_end.guest.write(DATA, &[1; 4096]);
    let entry = CopyEntry::new(Op::ToSystem, DATA, at, 4096);
    assert_eq!(front_end.run(&[entry]).status(), Status::Ok);
    front_end.guest.read(DATA, 4096) == [0; 4096]
}

/// Makes requests that take long until one of them let more rounds through than `HELD_UP`.
fn until_let_through(what: &str, mut attempt: impl FnMut() -> u32) {
    let mut most = 0;
    for _ in 0..MOST_ATTEMPTS {
        most = most.max(attempt());
        if most > HELD_UP {
            return;
        }
    }
    panic!("at most {most} rounds while memory was {what}, in {MOST_ATTEMPTS} attempts");
}

#[test]
fn the_memory_table_changes_while_a_session_is_opened() {
    let (_process, mut front_end) = large();
    until_let_through("scrubbed", || {
        put_everywhere(&mut front_end);
        let open = front_end.session_request(open());
        let (rounds, reply) = meanwhile(&mut front_end, &open);
        assert_eq!(reply.status, Status::Ok.to_wire());
        assert_ne!(reply.generation.get(), front_end.generation);
        front_end.generation = reply.generation.get();
        for at in [0, LARGE - 4096] {
            assert!(is_zero(&mut front_end, at), "{at:#x}");
        }
        rounds
    });
}

#[test]
fn the_memory_table_changes_while_memory_is_discarded() {
    let (_process, mut front_end) = large();
    let discard = ControlRequest::new(ControlKind::Discard, 0, 5, 0, LARGE);
    until_let_through("discarded", || {
        put_everywhere(&mut front_end);
        let (rounds, reply) = meanwhile(&mut front_end, discard.as_bytes());
        assert_eq!(reply.status, Status::Ok.to_wire());
        for at in [0, LARGE - 4096] {
            assert!(is_zero(&mut front_end, at), "{at:#x}");
        }
        rounds
    });
    // What was discarded once is written and discarded again: nothing is left of the first time.
    put(&mut front_end, 0);
    let (reply, _) = front_end.control(discard.as_bytes());
    assert_eq!(reply.status, Status::Ok.to_wire());
    assert!(is_zero(&mut front_end, 0));
}

#[test]
fn the_configuration_is_read_while_memory_is_scrubbed() {
    let (process, mut front_end) = large();
    for renew in [false, true] {
        until_let_through("scrubbed", || {
            configuration_reads(&process, &mut front_end, renew)
        });
    }
}

/// Scrubs all memory, and counts how often the configuration space can be read meanwhile.
fn configuration_reads(process: &Process, front_end: &mut FrontEnd, renew: bool) -> u32 {
    let generation = front_end.open();
    put_everywhere(front_end);
    let done = AtomicBool::new(false);
    let reads = thread::scope(|scope| {
        let before = front_end.rings[CONTROL].used_index(&front_end.guest);
        if renew {
            scope.spawn(|| {
                process.command_ok(r#"{"command":"renew"}"#);
                done.store(true, Ordering::Release);
            });
        } else {
            let open = front_end.session_request(open());
            front_end.guest.write(REQUEST, &open);
            front_end.rings[CONTROL].submit(
                &front_end.guest,
                &[(REQUEST, open.len() as u32)],
                &[(REPLY, CONTROL_BYTES as u32)],
            );
            front_end.rings[CONTROL].kick();
        }
        let mut reads = 0;
        loop {
            let config = front_end.config();
            let used = front_end.rings[CONTROL].used_index(&front_end.guest);
            if used != before || done.load(Ordering::Acquire) {
                break reads;
            }
            // The generation changes when the scrub begins.
            if config.generation.get() != generation {
                reads += 1;
            }
        }
    });
    if !renew {
        front_end.rings[CONTROL].wait(&front_end.guest);
    }
    reads
}
