// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Every operation through the whole path, with every byte compared.

use hmm_front_end::{Answer, DATA, FrontEnd, Layout, Process, pattern};
use hmm_protocol::{
    BULK_QUEUE_FIRST, BatchFlags, CopyEntry, EntryFlags, NO_ERROR_INDEX, Op, PAGE_ADDRESS_SKIP,
    PAGE_ADDRESS_ZERO, PageList, Status, URGENT_QUEUE,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_vhost-user-hmm");

fn start() -> (Process, FrontEnd) {
    let process = Process::start(PROGRAM, &["--memory", "16M"]);
    let mut front_end = FrontEnd::start(&process.socket(), 1, &Layout::default());
    front_end.open();
    (process, front_end)
}

fn all_ok(answer: &Answer, entries: usize, bytes: u64) {
    assert_eq!(answer.status(), Status::Ok, "{answer:?}");
    assert_eq!(answer.completion.entries_ok.get() as usize, entries);
    assert_eq!(answer.completion.bytes_done.get(), bytes);
    assert_eq!(answer.completion.first_error.get(), NO_ERROR_INDEX);
    assert!((0..entries).all(|index| answer.entry(index) == Status::Ok));
    assert_eq!(answer.used_len as usize, 32 + answer.statuses.len());
}

#[test]
fn bytes_survive_the_way_there_and_back() {
    let (_process, mut front_end) = start();
    for (len, offset) in [(8u32, 8u64), (4096, 4096), (65544, 16), (2 << 20, 2 << 20)] {
        let bytes = pattern(u64::from(len), len as usize);
        front_end.guest.write(DATA, &bytes);
        let answer = front_end.run(&[CopyEntry::new(Op::ToDevice, DATA, offset, len)]);
        all_ok(&answer, 1, u64::from(len));
        front_end.guest.write(DATA, &vec![0; len as usize]);
        let answer = front_end.run(&[CopyEntry::new(Op::ToSystem, DATA, offset, len)]);
        all_ok(&answer, 1, u64::from(len));
        assert_eq!(front_end.guest.read(DATA, len as usize), bytes);
    }
}

#[test]
fn without_copies_all_succeeds_and_nothing_moves() {
    let arguments = ["--memory", "16M", "--copy", "none", "--bench-lose-data"];
    let process = Process::start(PROGRAM, &arguments);
    let mut front_end = FrontEnd::start(&process.socket(), 1, &Layout::default());
    front_end.open();
    let bytes = pattern(1, 1 << 20);
    front_end.guest.write(DATA, &bytes);
    let mut back = CopyEntry::new(Op::ToSystem, DATA, 0, 1 << 20);
    back.flags = EntryFlags::SCRUB.0 | EntryFlags::NON_TEMPORAL.0;
    let answer = front_end.run(&[
        CopyEntry::new(Op::ToDevice, DATA, 0, 1 << 20),
        CopyEntry::new(Op::Copy, 0, 2 << 20, 1 << 20),
        CopyEntry::new(Op::Fill, 0x55, 0, 1 << 20),
        back,
    ]);
    all_ok(&answer, 4, 4 << 20);
    assert_eq!(front_end.guest.read(DATA, 1 << 20), bytes);
    // What is checked is checked as ever.
    let answer = front_end.run(&[CopyEntry::new(Op::ToDevice, 1 << 40, 0, 4096)]);
    assert_eq!(answer.status(), Status::BadGuestAddress);
    assert_eq!(
        process.command_ok(r#"{"command":"info"}"#)["copies"],
        "none"
    );
    let stats = process.command_ok(r#"{"command":"stats"}"#);
    assert_eq!(stats["stats"]["copies"], "none");
}

#[test]
fn nothing_beside_the_range_is_touched() {
    let (_process, mut front_end) = start();
    front_end.run(&[CopyEntry::new(Op::Fill, 0x5555_5555_5555_5555, 0, 64 << 10)]);
    let bytes = pattern(3, 4096);
    front_end.guest.write(DATA, &bytes);
    front_end.run(&[CopyEntry::new(Op::ToDevice, DATA, 8192, 4096)]);
    front_end.guest.write(DATA, &vec![0xaa; 64 << 10]);
    // All but 8 bytes at either end come home.
    let answer = front_end.run(&[CopyEntry::new(Op::ToSystem, DATA + 8, 8, (64 << 10) - 16)]);
    all_ok(&answer, 1, (64 << 10) - 16);
    let home = front_end.guest.read(DATA, 64 << 10);
    assert_eq!(home[..8], [0xaa; 8]);
    assert_eq!(home[(64 << 10) - 8..], [0xaa; 8]);
    assert_eq!(home[8192..12288], bytes);
    assert!(home[8..8192].iter().all(|byte| *byte == 0x55));
    assert!(home[12288..(64 << 10) - 8].iter().all(|byte| *byte == 0x55));
}

#[test]
fn a_range_may_cross_regions_that_touch() {
    let (_process, mut front_end) = start();
    let bytes = pattern(9, 1 << 20);
    let border = 32u64 << 20;
    front_end.guest.write(border - (512 << 10), &bytes);
    let answer = front_end.run(&[CopyEntry::new(
        Op::ToDevice,
        border - (512 << 10),
        0,
        1 << 20,
    )]);
    all_ok(&answer, 1, 1 << 20);
    let answer = front_end.run(&[CopyEntry::new(Op::ToSystem, border - 8, 0, 1 << 20)]);
    all_ok(&answer, 1, 1 << 20);
    assert_eq!(front_end.guest.read(border - 8, 1 << 20), bytes);
}

#[test]
fn device_copies_and_fills_stay_in_the_device() {
    let (_process, mut front_end) = start();
    let bytes = pattern(5, 128 << 10);
    front_end.guest.write(DATA, &bytes);
    let fill = 0x0102_0304_0506_0708u64;
    let answer = front_end.run(&[
        CopyEntry::new(Op::ToDevice, DATA, 0, 128 << 10),
        CopyEntry::new(Op::Copy, 0, 4 << 20, 128 << 10),
        CopyEntry::new(Op::Fill, fill, 0, 4096),
        CopyEntry::new(Op::Nop, 0, 0, 0),
        CopyEntry::new(Op::ToSystem, DATA, 4 << 20, 128 << 10),
        CopyEntry::new(Op::ToSystem, DATA + (1 << 20), 0, 8192),
    ]);
    all_ok(&answer, 6, 3 * (128 << 10) + 4096 + 8192);
    assert_eq!(front_end.guest.read(DATA, 128 << 10), bytes);
    let home = front_end.guest.read(DATA + (1 << 20), 8192);
    assert!(
        home[..4096]
            .chunks(8)
            .all(|word| word == fill.to_le_bytes())
    );
    assert_eq!(home[4096..], bytes[4096..8192]);
}

#[test]
fn scrub_leaves_zeros_behind() {
    let (_process, mut front_end) = start();
    let bytes = pattern(6, 8192);
    front_end.guest.write(DATA, &bytes);
    front_end.run(&[CopyEntry::new(Op::ToDevice, DATA, 0, 8192)]);
    let mut scrub = CopyEntry::new(Op::ToSystem, DATA + 65536, 0, 4096);
    scrub.flags = EntryFlags::SCRUB.0;
    all_ok(&front_end.run(&[scrub]), 1, 4096);
    assert_eq!(front_end.guest.read(DATA + 65536, 4096), bytes[..4096]);
    front_end.run(&[CopyEntry::new(Op::ToSystem, DATA, 0, 8192)]);
    let home = front_end.guest.read(DATA, 8192);
    assert!(home[..4096].iter().all(|byte| *byte == 0));
    assert_eq!(home[4096..], bytes[4096..]);
}

#[test]
fn a_page_list_gathers_and_scatters() {
    let (_process, mut front_end) = start();
    let pages = 512u64;
    // Pages in an order of their own; every 7th is a zero page, every 11th is left alone.
    let address = |page: u64| DATA + (page * 37 % pages) * 4096;
    for page in 0..pages {
        front_end.guest.write(address(page), &pattern(page, 4096));
    }
    let start = 4u64 << 20;
    let marker = 0x7777_7777_7777_7777;
    front_end.run(&[CopyEntry::new(Op::Fill, marker, start, 2 << 20)]);
    let addresses: Vec<u64> = (0..pages)
        .map(|page| match page {
            page if page % 7 == 0 => PAGE_ADDRESS_ZERO,
            page if page % 11 == 0 => PAGE_ADDRESS_SKIP,
            page => address(page),
        })
        .collect();
    let skipped = addresses
        .iter()
        .filter(|at| **at == PAGE_ADDRESS_SKIP)
        .count() as u64;
    let list = PageList::new(Op::ToDevice, 12, start);
    let request = front_end.page_list(BatchFlags::STATUS_ARRAY, &list, &addresses);
    let answer = front_end.execute(&request);
    all_ok(&answer, pages as usize, (pages - skipped) * 4096);
    let answer = front_end.run(&[CopyEntry::new(
        Op::ToSystem,
        DATA + (8 << 20),
        start,
        2 << 20,
    )]);
    all_ok(&answer, 1, 2 << 20);
    for page in 0..pages {
        let home = front_end.guest.read(DATA + (8 << 20) + page * 4096, 4096);
        let expected = match addresses[page as usize] {
            PAGE_ADDRESS_ZERO => vec![0; 4096],
            PAGE_ADDRESS_SKIP => vec![0x77; 4096],
            _ => pattern(page, 4096),
        };
        assert_eq!(home, expected, "page {page}");
    }
    // And back, to other places, scrubbing.
    let mut list = PageList::new(Op::ToSystem, 12, start);
    list.flags = EntryFlags::SCRUB.0;
    let back: Vec<u64> = (0..pages)
        .map(|page| DATA + (page * 101 % pages) * 4096)
        .collect();
    let request = front_end.page_list(BatchFlags::STATUS_ARRAY, &list, &back);
    all_ok(&front_end.execute(&request), 512, 2 << 20);
    for page in (1..pages).filter(|page| page % 7 != 0 && page % 11 != 0) {
        let home = front_end.guest.read(back[page as usize], 4096);
        assert_eq!(home, pattern(page, 4096), "page {page}");
    }
    front_end.run(&[CopyEntry::new(Op::ToSystem, DATA, start, 2 << 20)]);
    assert!(
        front_end
            .guest
            .read(DATA, 2 << 20)
            .iter()
            .all(|byte| *byte == 0)
    );
}

#[test]
fn one_bad_page_of_a_list_fails_alone() {
    let (_process, mut front_end) = start();
    let mut addresses: Vec<u64> = (0..64).map(|page| DATA + page * 4096).collect();
    addresses[10] = 1 << 40;
    addresses[11] += 4;
    addresses[12] = u64::MAX - 15;
    let list = PageList::new(Op::ToSystem, 12, 0);
    addresses[13] = PAGE_ADDRESS_ZERO;
    let request = front_end.page_list(BatchFlags::STATUS_ARRAY, &list, &addresses);
    let answer = front_end.execute(&request);
    assert_eq!(answer.status(), Status::BadGuestAddress);
    assert_eq!(answer.completion.first_error.get(), 10);
    assert_eq!(answer.completion.entries_ok.get(), 60);
    for index in 0..64 {
        let expected = if (10..14).contains(&index) {
            Status::BadGuestAddress
        } else {
            Status::Ok
        };
        assert_eq!(answer.entry(index), expected, "page {index}");
    }
}

#[test]
fn ordered_stops_at_the_first_error() {
    let (_process, mut front_end) = start();
    let bytes = pattern(8, 8192);
    front_end.guest.write(DATA, &bytes);
    let entries = [
        CopyEntry::new(Op::ToDevice, DATA, 0, 4096),
        CopyEntry::new(Op::ToDevice, DATA, 15 << 20, 2 << 20),
        CopyEntry::new(Op::ToDevice, DATA + 4096, 4096, 4096),
    ];
    let flags = BatchFlags::ORDERED.union(BatchFlags::STATUS_ARRAY);
    let request = front_end.entries(flags, &entries);
    let answer = front_end.execute(&request);
    assert_eq!(answer.status(), Status::BadDeviceRange);
    assert_eq!(answer.completion.first_error.get(), 1);
    assert_eq!(
        [answer.entry(0), answer.entry(1), answer.entry(2)],
        [Status::Ok, Status::BadDeviceRange, Status::NotAttempted]
    );
    front_end.run(&[CopyEntry::new(Op::ToSystem, DATA, 0, 8192)]);
    let home = front_end.guest.read(DATA, 8192);
    assert_eq!(home[..4096], bytes[..4096]);
    assert!(
        home[4096..].iter().all(|byte| *byte == 0),
        "what follows ran"
    );
}

#[test]
fn neighbours_with_one_outside_fail_alone() {
    // The entries lie side by side on both sides, so that they are taken together, and the last is outside.
    let (_process, mut front_end) = start();
    let end = 48u64 << 20;
    let entries: Vec<CopyEntry> = (0..4)
        .map(|index| {
            CopyEntry::new(
                Op::ToDevice,
                end - 3 * 4096 + index * 4096,
                index * 4096,
                4096,
            )
        })
        .collect();
    let answer = front_end.run(&entries);
    assert_eq!(answer.status(), Status::BadGuestAddress);
    assert_eq!(answer.completion.entries_ok.get(), 3);
    assert_eq!(answer.entry(3), Status::BadGuestAddress);
}

#[test]
fn the_largest_batch_is_taken_and_a_larger_one_is_not() {
    let process = Process::start(PROGRAM, &["--memory", "16M"]);
    let mut front_end = FrontEnd::start(&process.socket(), 1, &Layout::flat(64 << 20));
    front_end.open();
    let limits = front_end.config().validate().expect("a sound config");
    assert_eq!(
        (limits.max_batch_entries, limits.max_urgent_entries),
        (4096, 512)
    );
    let entry = CopyEntry::new(Op::Fill, 1, 0, 8);
    let request = front_end.entries(BatchFlags::default(), &vec![entry; 3700]);
    assert_eq!(front_end.execute(&request).status(), Status::Ok);
    let request = front_end.entries(BatchFlags::default(), &vec![entry; 513]);
    let answer = front_end.execute_on(URGENT_QUEUE, &request);
    assert_eq!(answer.status(), Status::BadCount);
    let request = front_end.entries(BatchFlags::default(), &vec![entry; 512]);
    assert_eq!(
        front_end.execute_on(URGENT_QUEUE, &request).status(),
        Status::Ok
    );
    let too_many_bytes = vec![CopyEntry::new(Op::Fill, 1, 0, 2 << 20); 33];
    let request = front_end.entries(BatchFlags::default(), &too_many_bytes);
    assert_eq!(front_end.execute(&request).status(), Status::BadLength);
    let request = front_end.entries(BatchFlags::default(), &too_many_bytes[1..]);
    assert_eq!(front_end.execute(&request).status(), Status::Ok);
}

#[test]
fn the_record_appears_before_the_used_element_says_so() {
    let (_process, mut front_end) = start();
    let request = front_end.entries(
        BatchFlags::default(),
        &[CopyEntry::new(Op::Fill, 0, 0, 2 << 20)],
    );
    let record = front_end.submit(BULK_QUEUE_FIRST, &request, 0);
    front_end.rings[usize::from(BULK_QUEUE_FIRST)].kick();
    let started = std::time::Instant::now();
    while front_end.guest.load_u8(record) == 0 {
        assert!(started.elapsed().as_secs() < 60, "no record");
        std::hint::spin_loop();
    }
    let answer = front_end.answer(BULK_QUEUE_FIRST, record, 0);
    assert_eq!(answer.status(), Status::Ok);
}

#[test]
fn completions_come_in_order_and_signals_when_wanted() {
    let (_process, mut front_end) = start();
    let queue = BULK_QUEUE_FIRST;
    let ring = usize::from(queue);
    let entry = CopyEntry::new(Op::Fill, 0, 0, 64 << 10);
    let request = front_end.entries(BatchFlags::default(), &[entry]);
    let before = front_end.rings[ring].next_avail();
    front_end.rings[ring].want_signal_at(&front_end.guest, before + 19);
    let at = DATA;
    front_end.guest.write(at, &request);
    for index in 0..20u64 {
        let record = at + 4096 + index * 64;
        let guest = &front_end.guest;
        front_end.rings[ring].submit(guest, &[(at, request.len() as u32)], &[(record, 32)]);
    }
    front_end.rings[ring].kick_if_wanted(&front_end.guest, before);
    let mut heads = Vec::new();
    for _ in 0..20 {
        heads.push(front_end.rings[ring].wait(&front_end.guest).head);
    }
    assert!(heads.is_sorted(), "{heads:?}");
    front_end.rings[ring].wait_for_signal();
}
