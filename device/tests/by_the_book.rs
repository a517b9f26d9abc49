// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A driver that knows nothing but docs/wire-format.md: every number below is on that page, and the crate that has the
//! same in code is not used. The rings are virtio's and the connection is vhost-user's; those have books of their own.

use hmm_front_end::{FrontEnd, Layout, Process};
use vhost::vhost_user::{VhostUserFrontend, message::VhostUserConfigFlags};

const PROGRAM: &str = env!("CARGO_BIN_EXE_vhost-user-hmm");

const CONTROL: usize = 0;
const EVENT: usize = 1;
const URGENT: usize = 2;
const BULK0: usize = 3;
const OK: u8 = 1;
/// Where requests and answers are in the guest's memory, and where its pages are.
const REQUEST: u64 = 8 << 20;
const ANSWER: u64 = 9 << 20;
const PAGES: u64 = 16 << 20;

/// Fields, one after the other: values and their bytes.
fn bytes(fields: &[(u64, usize)]) -> Vec<u8> {
    fields
        .iter()
        .flat_map(|(value, len)| value.to_le_bytes()[..*len].to_vec())
        .collect()
}

fn number(bytes: &[u8], at: usize, len: usize) -> u64 {
    bytes[at..at + len]
        .iter()
        .rev()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

struct Driver {
    process: Process,
    front_end: FrontEnd,
    generation: u64,
    cookie: u64,
}

impl Driver {
    /// Puts `request` on `queue` with room for `room` bytes, and returns what was written there.
    fn call(&mut self, queue: usize, request: &[u8], room: u32) -> Vec<u8> {
        let FrontEnd { guest, rings, .. } = &mut self.front_end;
        guest.write(REQUEST, request);
        guest.write(ANSWER, &vec![0; room as usize]);
        let half = request.len() as u32 / 2;
        // However it is divided.
        let readable = [
            (REQUEST, half),
            (REQUEST + u64::from(half), request.len() as u32 - half),
        ];
        rings[queue].submit(guest, &readable, &[(ANSWER, 8), (ANSWER + 8, room - 8)]);
        rings[queue].kick();
        let used = rings[queue].wait(guest);
        guest.read(ANSWER, used.len as usize)
    }

    /// A control request; returns status and generation.
    fn control(&mut self, kind: u64, flags: u64, argument0: u64, argument1: u64) -> (u8, u64) {
        self.cookie += 1;
        let mut request = bytes(&[
            (kind, 1),
            (flags, 1),
            (0, 2),
            (0, 4),
            (self.cookie, 8),
            (argument0, 8),
            (argument1, 8),
        ]);
        if kind == 0x81 {
            request.extend([0x33; 16]);
        }
        let reply = self.call(CONTROL, &request, 32);
        assert_eq!(reply.len(), 32);
        assert_eq!(number(&reply, 8, 8), self.cookie);
        (reply[0], number(&reply, 16, 8))
    }

    /// A batch of `count` entries in `body`. Returns the status, the bytes done and the statuses of the entries.
    fn batch(
        &mut self,
        queue: usize,
        (kind, flags, entry_bytes): (u64, u64, u64),
        count: usize,
        body: &[u8],
    ) -> (u8, u64, Vec<u8>) {
        self.cookie += 1;
        let mut request = bytes(&[
            (kind, 1),
            (flags, 1),
            (entry_bytes, 2),
            (count as u64, 4),
            (self.cookie, 8),
            (self.generation, 8),
            (0, 8),
        ]);
        request.extend(body);
        let array = if flags & 4 == 0 {
            0
        } else {
            count.next_multiple_of(8)
        };
        let record = self.call(queue, &request, 32 + array as u32);
        assert_eq!(number(&record, 24, 8), self.cookie);
        if record.len() == 32 {
            return (record[0], number(&record, 8, 8), Vec::new());
        }
        assert_eq!(record.len(), 32 + array);
        let statuses = record[32..32 + count].to_vec();
        let ok = statuses.iter().filter(|status| **status == OK).count();
        assert_eq!(number(&record, 4, 4), ok as u64, "entries_ok");
        let failed = statuses.iter().position(|status| *status > OK);
        let first_error = failed.map_or(0xffff_ffff, |index| index as u64);
        assert_eq!(number(&record, 16, 4), first_error, "first_error");
        (record[0], number(&record, 8, 8), statuses)
    }

    fn entries(&mut self, queue: usize, flags: u64, entries: &[Vec<u8>]) -> (u8, u64, Vec<u8>) {
        self.batch(queue, (1, flags, 32), entries.len(), &entries.concat())
    }

    fn pages(
        &mut self,
        (op, flags): (u64, u64),
        device_address: u64,
        addresses: &[u64],
    ) -> (u8, u64, Vec<u8>) {
        let mut body = bytes(&[
            (op, 1),
            (flags, 1),
            (0, 2),
            (12, 4),
            (device_address, 8),
            (0, 8),
            (0, 8),
        ]);
        body.extend(addresses.iter().flat_map(|address| address.to_le_bytes()));
        self.batch(BULK0, (2, 4, 8), addresses.len(), &body)
    }

    fn write(&self, page: u64, byte: u8) {
        self.front_end
            .guest
            .write(PAGES + page * 4096, &[byte; 4096]);
    }

    fn holds(&self, page: u64, byte: u8) -> bool {
        let found = self.front_end.guest.read(PAGES + page * 4096, 4096);
        found.iter().all(|found| *found == byte)
    }

    /// Posts a buffer for an event.
    fn post(&mut self) {
        let FrontEnd { guest, rings, .. } = &mut self.front_end;
        rings[EVENT].submit(guest, &[], &[(ANSWER + 4096, 32)]);
        rings[EVENT].kick();
    }

    /// Waits for an event; returns kind, queue and value.
    fn event(&mut self) -> (u8, u64, u64) {
        let FrontEnd { guest, rings, .. } = &mut self.front_end;
        assert_eq!(rings[EVENT].wait(guest).len, 32);
        let event = guest.read(ANSWER + 4096, 32);
        (event[0], number(&event, 2, 2), number(&event, 8, 8))
    }
}

fn entry(op: u64, flags: u64, len: u64, address: u64, device_address: u64) -> Vec<u8> {
    bytes(&[
        (op, 1),
        (flags, 1),
        (0, 2),
        (len, 4),
        (address, 8),
        (device_address, 8),
        (0, 8),
    ])
}

/// Steps 1 to 3 of a driver's life.
fn start() -> Driver {
    let process = Process::start(PROGRAM, &["--memory", "8M"]);
    let mut front_end = FrontEnd::start(&process.socket(), 1, &Layout::flat(32 << 20));
    let (_, config) = front_end
        .frontend
        .get_config(0, 128, VhostUserConfigFlags::empty(), &[0; 128])
        .expect("the configuration space");
    assert_eq!(&config[..4], b"HMMD");
    for (at, len, expected) in [
        (4, 2, 1),
        (8, 8, 8 << 20),
        (16, 4, 4096),
        (20, 4, 4096),
        (24, 4, 2 << 20),
        (28, 4, 512),
        (32, 8, 0),
        (64, 4, 1),
        (68, 4, 2 << 20),
        (72, 8, 64 << 20),
        (80, 4, 0),
        (84, 4, 2),
        (88, 4, 4096),
        (96, 4, 1024),
    ] {
        assert_eq!(number(&config, at, len), expected, "at {at}");
    }
    assert!(config[108..].iter().all(|byte| *byte == 0));
    let generation = number(&config, 40, 8);
    assert_ne!(generation, 0);
    let mut driver = Driver {
        process,
        front_end,
        generation,
        cookie: 0,
    };
    assert_eq!(driver.control(0x80, 0, 0, 0), (OK, generation), "PING");
    let fill = [entry(4, 0, 8, 0, 0)];
    assert_eq!(driver.entries(BULK0, 4, &fill).0, 0x1a, "NO_SESSION");
    let (status, generation) = driver.control(0x81, 0, 0, 0);
    assert_eq!(status, OK, "SESSION_OPEN");
    driver.generation = generation;
    driver
}

#[test]
fn every_operation_can_be_used() {
    let mut driver = start();
    for queue in [BULK0, URGENT] {
        driver.write(0, 0x11);
        driver.write(1, 0x22);
        // There, within, a pattern, nothing, and back with a scrub; in order because each needs the one before.
        let batch = [
            entry(1, 0, 8192, PAGES, 0),
            entry(3, 1, 4096, 0, 8192),
            entry(4, 0, 4096, 0x3333_3333_3333_3333, 12288),
            entry(5, 0, 0, 0, 0),
            entry(2, 1 | 2, 16384, PAGES + 8192, 0),
            entry(2, 1 | 4, 4096, PAGES + 6 * 4096, 4096),
        ];
        let done = 8192 + 4096 + 4096 + 16384 + 4096;
        let (status, bytes, statuses) = driver.entries(queue, 1 | 2 | 4, &batch);
        assert_eq!((status, bytes), (OK, done));
        assert_eq!(statuses, [OK; 6]);
        for (page, byte) in [(2, 0x11), (3, 0x22), (4, 0x11), (5, 0x33), (6, 0)] {
            assert!(driver.holds(page, byte), "page {page}");
        }
    }
}

#[test]
fn pages_are_gathered_and_scattered() {
    const ZERO: u64 = u64::MAX;
    const SKIP: u64 = u64::MAX - 1;
    let mut driver = start();
    let page = |index: u64| PAGES + index * 4096;
    for index in 0..4 {
        driver.write(index, 0x40 + index as u8);
    }
    let there = [page(3), ZERO, page(1), SKIP, page(0)];
    let (status, bytes, statuses) = driver.pages((1, 0), 1 << 20, &there);
    assert_eq!((status, bytes), (OK, 4 * 4096));
    assert_eq!(statuses, [OK; 5]);
    // Back to front, and scrubbed. The page that was skipped was never written.
    let back = [page(9), page(8), page(7), page(6), page(5)];
    assert_eq!(driver.pages((2, 2), 1 << 20, &back).0, OK);
    for (index, byte) in [(9, 0x43), (8, 0), (7, 0x41), (6, 0), (5, 0x40)] {
        assert!(driver.holds(index, byte), "page {index}");
    }
    assert_eq!(driver.pages((2, 4), 1 << 20, &back).0, OK);
    assert!((5..10).all(|index| driver.holds(index, 0)), "scrubbed");
    // A bad address fails its page alone.
    let (status, _, statuses) = driver.pages((1, 0), 0, &[page(0), 1 << 40, page(1)]);
    assert_eq!((status, &statuses[..]), (0x17, &[OK, 0x17, OK][..]));
}

#[test]
fn what_goes_wrong_says_so() {
    let mut driver = start();
    let good = entry(4, 0, 8, 0, 0);
    for (bad, code) in [
        (entry(9, 0, 8, 0, 0), 0x10),
        (entry(4, 0x80, 8, 0, 0), 0x11),
        (entry(4, 2, 8, 0, 0), 0x11),
        (entry(4, 0, 7, 0, 0), 0x13),
        (entry(5, 0, 0, 1, 0), 0x12),
        (entry(4, 0, 8, 0, 8 << 20), 0x15),
        (entry(3, 0, 4096, 0, 8), 0x16),
        (entry(1, 0, 8, 1 << 40, 0), 0x17),
    ] {
        let all = [good.clone(), bad, good.clone()];
        let (status, bytes, statuses) = driver.entries(BULK0, 4, &all);
        assert_eq!((status, bytes), (code, 16));
        assert_eq!(statuses, [OK, code, OK]);
        // ORDERED: the first that fails ends it.
        assert_eq!(driver.entries(BULK0, 5, &all).2, [OK, code, 0]);
    }
    let alone = |driver: &mut Driver, shape, count, body: &[u8]| {
        let (status, bytes, statuses) = driver.batch(BULK0, shape, count, body);
        assert_eq!((bytes, statuses.len()), (0, 0), "nothing was executed");
        status
    };
    assert_eq!(alone(&mut driver, (7, 0, 32), 1, &good), 0x10);
    assert_eq!(alone(&mut driver, (1, 8, 32), 1, &good), 0x11);
    assert_eq!(alone(&mut driver, (1, 0, 16), 1, &good), 0x13);
    assert_eq!(alone(&mut driver, (1, 0, 32), 2, &good), 0x13);
    assert_eq!(alone(&mut driver, (1, 0, 32), 0, &[]), 0x14);
    driver.generation ^= 1;
    assert_eq!(alone(&mut driver, (1, 0, 32), 1, &good), 0x19);
    assert_eq!(driver.control(0x99, 0, 0, 0).0, 0x10);
    assert_eq!(driver.call(CONTROL, &[0x80; 31], 32)[0], 0x13);
}

#[test]
fn contents_are_adopted_discarded_and_lost() {
    let mut driver = start();
    driver.write(0, 0x77);
    let both = [entry(1, 0, 4096, PAGES, 0), entry(1, 0, 4096, PAGES, 4096)];
    assert_eq!(driver.entries(BULK0, 4, &both).0, OK);
    let generation = driver.generation;
    assert_eq!(driver.control(0x81, 1, generation ^ 1, 0).0, 0x19);
    assert_eq!(driver.control(0x81, 1, generation, 0), (OK, generation));
    assert_eq!(driver.control(0x82, 0, 4096, 4096).0, OK, "DISCARD");
    let home = [entry(2, 0, 8192, PAGES + 8192, 0)];
    assert_eq!(driver.entries(BULK0, 4, &home).0, OK);
    assert!(driver.holds(2, 0x77) && driver.holds(3, 0));
    driver.post();
    let renewed = driver.process.command_ok(r#"{"command":"renew"}"#);
    let (kind, queue, value) = driver.event();
    assert_eq!((kind, queue), (1, 0), "GENERATION");
    assert_eq!(renewed["generation"], value);
    assert_eq!(driver.entries(BULK0, 4, &home).0, 0x1a);
    assert_eq!(driver.control(0x81, 1, value, 0), (OK, value));
    driver.generation = value;
    assert_eq!(driver.entries(BULK0, 4, &home).0, OK);
    assert!(driver.holds(2, 0));
}

#[test]
fn contents_outlive_a_session_that_is_ended() {
    let mut driver = start();
    driver.write(0, 0x77);
    let there = [entry(1, 0, 4096, PAGES, 0)];
    assert_eq!(driver.entries(BULK0, 4, &there).0, OK);
    driver.process.command_ok(r#"{"command":"end-session"}"#);
    let home = [entry(2, 0, 4096, PAGES + 8192, 0)];
    assert_eq!(driver.entries(BULK0, 4, &home).0, 0x1a);
    let info = driver.process.command_ok(r#"{"command":"info"}"#);
    assert_eq!(info["session_open"], false);
    let generation = driver.generation;
    assert_eq!(driver.control(0x81, 1, generation, 0), (OK, generation));
    assert_eq!(driver.entries(BULK0, 4, &home).0, OK);
    assert!(driver.holds(2, 0x77));
}

#[test]
fn events_tell_of_poison_and_broken_queues() {
    let mut driver = start();
    driver.post();
    let poison =
        r#"{"command":"fault-add","fault":{"action":"poison","start":8192,"length":4096}}"#;
    driver.process.command_ok(poison);
    assert_eq!(driver.event(), (3, 0, 8192));
    let read = [entry(2, 0, 4096, PAGES, 8192)];
    assert_eq!(driver.entries(BULK0, 4, &read).2, [0x20]);
    driver.post();
    let FrontEnd { guest, rings, .. } = &mut driver.front_end;
    let ahead = rings[BULK0].next_avail().wrapping_add(1000);
    rings[BULK0].set_available_index(guest, ahead);
    rings[BULK0].kick();
    assert_eq!(driver.event(), (2, BULK0 as u64, 0));
    // The others go on, and so does this one when it is set up again.
    assert_eq!(driver.entries(URGENT, 4, &[entry(4, 0, 8, 0, 0)]).0, OK);
    driver.front_end.reboot();
    let (status, generation) = driver.control(0x81, 1, driver.generation, 0);
    assert_eq!((status, generation), (OK, driver.generation));
    assert_eq!(driver.entries(BULK0, 4, &[entry(4, 0, 8, 0, 0)]).0, OK);
    // More events than wait for buffers.
    for _ in 0..70 {
        driver.process.command_ok(poison);
    }
    let mut kinds = Vec::new();
    for _ in 0..65 {
        driver.post();
        kinds.push(driver.event());
    }
    assert_eq!(kinds.iter().filter(|event| event.0 == 3).count(), 64);
    let lost = kinds.iter().find(|event| event.0 == 4);
    assert_eq!(lost.map(|event| event.2), Some(6), "LOST");
}

/// The queues behind the bulk queue.
const MMU: usize = 4;
const REPORT: usize = 5;
const JOB0: usize = 6;

impl Driver {
    /// Changes of the page tables of context 0, or answers to page faults; returns the status of the batch.
    fn change(&mut self, entries: &[Vec<u8>]) -> u8 {
        self.batch(MMU, (3, 4, 32), entries.len(), &entries.concat())
            .0
    }

    /// Submits a job of context 0 and returns its cookie, and whether it was accepted.
    fn job(&mut self, kind: u64, flags: u64, arguments: &[u64]) -> (u64, u8) {
        self.cookie += 1;
        let mut words = [0; 12];
        words[..arguments.len()].copy_from_slice(arguments);
        let mut request = bytes(&[
            (kind, 1),
            (flags, 1),
            (0, 2),
            (0, 4),
            (self.cookie, 8),
            (self.generation, 8),
        ]);
        request.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        request.extend([0; 8]);
        assert_eq!(request.len(), 128);
        let record = self.call(JOB0, &request, 32);
        assert_eq!(number(&record, 24, 8), self.cookie);
        assert_eq!(number(&record, 4, 4), u64::from(record[0] == OK));
        (self.cookie, record[0])
    }

    /// Posts a buffer for a report, and waits for it.
    fn report(&mut self) -> Vec<u8> {
        let FrontEnd { guest, rings, .. } = &mut self.front_end;
        rings[REPORT].submit(guest, &[], &[(ANSWER + 8192, 64)]);
        rings[REPORT].kick();
        assert_eq!(rings[REPORT].wait(guest).len, 64);
        guest.read(ANSWER + 8192, 64)
    }
}

/// A change of page tables.
fn mapping(op: u64, flags: u64, shift: u64, address: u64, len: u64, target: u64) -> Vec<u8> {
    bytes(&[
        (op, 1),
        (flags, 1),
        (shift, 1),
        (0, 1),
        (0, 4),
        (address, 8),
        (len, 8),
        (target, 8),
    ])
}

#[test]
fn jobs_work_in_a_context_and_fault() {
    const HERE: u64 = 0x7f00_0020_0000;
    let mut driver = start();
    assert_eq!(driver.job(1, 0, &[HERE, 8, 1]).1, 0x1b, "BAD_CONTEXT");
    assert_eq!(driver.control(0x83, 0, 0, 0).0, OK, "CONTEXT_CREATE");
    // Two huge pages of device memory, of which the driver takes a part away, and what is behind them.
    assert_eq!(
        driver.change(&[mapping(1, 15, 21, HERE, 4 << 20, 4 << 20)]),
        OK
    );
    let hole = HERE + (1 << 20);
    let changes = [
        mapping(2, 0, 0, hole, 4096, 0),
        mapping(3, 1, 0, HERE + 4096, 4096, 0),
    ];
    assert_eq!(driver.change(&changes), OK);
    // FILL with NO_FAULT ends where writing is not permitted.
    let (cookie, accepted) = driver.job(1, 1, &[HERE, 8192, 0x4444_4444_4444_4444]);
    assert_eq!(accepted, OK);
    let end = driver.report();
    assert_eq!((end[0], end[1]), (2, 0x25), "FORBIDDEN");
    assert_eq!(number(&end, 8, 8), cookie);
    assert_eq!(number(&end, 24, 8), HERE + 4096);
    assert_eq!(number(&end, 32, 8), 4096);
    // FILL over the hole faults; the driver maps a page of the guest and resumes in one batch.
    driver.write(0, 0);
    let (cookie, accepted) = driver.job(1, 0, &[hole - 4096, 12288, 0x5555_5555_5555_5555]);
    assert_eq!(accepted, OK);
    let fault = driver.report();
    assert_eq!((fault[0], fault[1]), (1, 2), "FAULT, to write");
    assert_eq!(
        (number(&fault, 8, 8), number(&fault, 24, 8)),
        (cookie, hole)
    );
    assert!((1..=8192).contains(&number(&fault, 32, 8)));
    let number_of_it = number(&fault, 16, 8);
    let answers = [
        mapping(1, 3, 12, hole, 4096, PAGES),
        mapping(4, 0, 0, number_of_it, 0, 0),
    ];
    assert_eq!(driver.change(&answers), OK);
    assert_eq!(driver.change(&answers), 0x1c, "BAD_FAULT");
    let end = driver.report();
    assert_eq!((end[0], end[1]), (2, OK));
    assert_eq!((number(&end, 32, 8), number(&end, 56, 4)), (12288, 1));
    assert!(driver.holds(0, 0x55));
    // What jobs wrote is in device memory: block 2 and no other.
    let FrontEnd { guest, rings, .. } = &mut driver.front_end;
    let ask = bytes(&[(0x86, 1), (1, 1), (0, 6), (0, 8), (0, 8), (64, 8)]);
    guest.write(REQUEST, &ask);
    rings[CONTROL].submit(guest, &[(REQUEST, 32)], &[(ANSWER, 48)]);
    rings[CONTROL].kick();
    assert_eq!(rings[CONTROL].wait(guest).len, 48);
    let reply = guest.read(ANSWER, 48);
    assert_eq!((number(&reply, 32, 8), number(&reply, 40, 8)), (4, 4));
    assert_eq!(driver.control(0x84, 0, 0, 0).0, OK, "CONTEXT_DESTROY");
    assert_eq!(driver.change(&changes), 0x1b, "BAD_CONTEXT");
}
