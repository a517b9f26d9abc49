// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A status for every bad field.

use hmm_front_end::{DATA, FrontEnd, Layout, Process};
use hmm_protocol::{
    BatchFlags, BatchHeader, BatchKind, COMPLETION_BYTES, CONTROL_BYTES, ControlKind,
    ControlRequest, CopyEntry, NO_ERROR_INDEX, Op, PageList, Status,
};
use zerocopy::{
    FromBytes, IntoBytes,
    byteorder::little_endian::{U16, U32, U64},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_vhost-user-hmm");
const MEMORY: u64 = 16 << 20;

fn start() -> (Process, FrontEnd) {
    let process = Process::start(PROGRAM, &["--memory", "16M"]);
    let mut front_end = FrontEnd::start(&process.socket(), 1, &Layout::default());
    front_end.open();
    (process, front_end)
}

fn header(request: &mut [u8]) -> &mut BatchHeader {
    BatchHeader::mut_from_prefix(request).expect("a header").0
}

/// The batch must fail as a whole, and the device must go on.
fn refused(front_end: &mut FrontEnd, request: &[u8], status: Status, why: &str) {
    let answer = front_end.execute(request);
    assert_eq!(answer.status(), status, "{why}");
    assert_eq!(answer.used_len as usize, COMPLETION_BYTES, "{why}");
    assert_eq!(answer.completion.first_error.get(), NO_ERROR_INDEX, "{why}");
    assert_eq!(answer.completion.entries_ok.get(), 0, "{why}");
    assert_eq!(answer.completion.bytes_done.get(), 0, "{why}");
    let cookie = request
        .get(8..16)
        .map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().expect("8")));
    if request.len() >= 32 {
        assert_eq!(answer.completion.cookie.get(), cookie, "{why}");
    }
    let sound = front_end.run(&[CopyEntry::new(Op::Fill, 0, 0, 8)]);
    assert_eq!(sound.status(), Status::Ok, "after {why}");
}

#[test]
fn a_bad_header_fails_the_batch() {
    let (_process, mut front_end) = start();
    let entry = CopyEntry::new(Op::Fill, 0, 0, 8);
    type Spoil = fn(&mut BatchHeader);
    let cases: [(&str, Spoil, Status); 14] = [
        ("kind 0", |h| h.kind = 0, Status::BadOp),
        ("kind 3", |h| h.kind = 3, Status::BadOp),
        ("kind 255", |h| h.kind = 255, Status::BadOp),
        ("unknown flag", |h| h.flags = 8, Status::BadFlags),
        ("all flags", |h| h.flags = 255, Status::BadFlags),
        (
            "reserved",
            |h| h.reserved = U64::new(1 << 63),
            Status::ReservedNonZero,
        ),
        (
            "entry size 0",
            |h| h.entry_bytes = U16::new(0),
            Status::BadLength,
        ),
        (
            "entry size 64",
            |h| h.entry_bytes = U16::new(64),
            Status::BadLength,
        ),
        (
            "no entry",
            |h| h.entry_count = U32::new(0),
            Status::BadCount,
        ),
        (
            "too many entries",
            |h| h.entry_count = U32::new(4097),
            Status::BadCount,
        ),
        (
            "4 Gi entries",
            |h| h.entry_count = U32::new(u32::MAX),
            Status::BadCount,
        ),
        (
            "more entries than there are",
            |h| h.entry_count = U32::new(3),
            Status::BadLength,
        ),
        (
            "fewer entries than there are",
            |h| h.entry_count = U32::new(1),
            Status::BadLength,
        ),
        (
            "another generation",
            |h| h.generation = U64::new(h.generation.get() ^ 1),
            Status::StaleGeneration,
        ),
    ];
    for (why, spoil, status) in cases {
        let mut request = front_end.entries(BatchFlags::default(), &[entry; 2]);
        spoil(header(&mut request));
        refused(&mut front_end, &request, status, why);
    }
    for len in [1, 31] {
        let request = front_end.entries(BatchFlags::default(), &[entry]);
        let why = format!("a request of {len} bytes");
        refused(&mut front_end, &request[..len], Status::BadLength, &why);
    }
    let mut request = front_end.entries(BatchFlags::default(), &[entry]);
    request.push(0);
    refused(
        &mut front_end,
        &request,
        Status::BadLength,
        "a byte too many",
    );
}

#[test]
fn a_bad_page_list_fails_the_batch() {
    let (_process, mut front_end) = start();
    type Spoil = fn(&mut PageList);
    let cases: [(&str, Spoil, Status); 13] = [
        ("op 0", |l| l.op = 0, Status::BadOp),
        ("copy", |l| l.op = 3, Status::BadOp),
        ("nop", |l| l.op = 5, Status::BadOp),
        ("fence", |l| l.flags = 1, Status::BadFlags),
        ("unknown flag", |l| l.flags = 0x80, Status::BadFlags),
        ("scrub to the device", |l| l.flags = 2, Status::BadFlags),
        (
            "reserved",
            |l| l.reserved = U16::new(1),
            Status::ReservedNonZero,
        ),
        (
            "second reserved",
            |l| l.reserved2[1] = U64::new(1),
            Status::ReservedNonZero,
        ),
        (
            "64 KiB pages",
            |l| l.page_shift = U32::new(16),
            Status::BadLength,
        ),
        (
            "a shift of 64",
            |l| l.page_shift = U32::new(64),
            Status::BadLength,
        ),
        (
            "not aligned",
            |l| l.device_address = U64::new(8),
            Status::BadDeviceRange,
        ),
        (
            "beyond the end",
            |l| l.device_address = U64::new(MEMORY - 4096),
            Status::BadDeviceRange,
        ),
        (
            "wrapping",
            |l| l.device_address = U64::new(u64::MAX - 4095),
            Status::BadDeviceRange,
        ),
    ];
    for (why, spoil, status) in cases {
        let mut list = PageList::new(Op::ToDevice, 12, 0);
        spoil(&mut list);
        let request = front_end.page_list(BatchFlags::STATUS_ARRAY, &list, &[DATA, DATA]);
        refused(&mut front_end, &request, status, why);
    }
    let list = PageList::new(Op::ToDevice, 12, 0);
    let request = front_end.page_list(BatchFlags::default(), &list, &[DATA]);
    refused(
        &mut front_end,
        &request[..40],
        Status::BadLength,
        "half a list head",
    );
    refused(
        &mut front_end,
        &request[..68],
        Status::BadLength,
        "half an address",
    );
}

#[test]
fn a_bad_entry_fails_alone() {
    let (_process, mut front_end) = start();
    let entry = CopyEntry::new;
    let with_flags = |mut entry: CopyEntry, flags| {
        entry.flags = flags;
        entry
    };
    let reserved = |mut entry: CopyEntry| {
        entry.reserved = U16::new(1);
        entry
    };
    let reserved2 = |mut entry: CopyEntry| {
        entry.reserved2 = U64::new(1);
        entry
    };
    let with_op = |op| {
        let mut entry = entry(Op::Fill, 0, 0, 8);
        entry.op = op;
        entry
    };
    let good = entry(Op::Fill, 0, 0, 8);
    let end_of_region = 48u64 << 20;
    let cases = [
        (with_op(0), Status::BadOp),
        (with_op(6), Status::BadOp),
        (with_op(255), Status::BadOp),
        (with_flags(good, 8), Status::BadFlags),
        (with_flags(good, 2), Status::BadFlags),
        (reserved(good), Status::ReservedNonZero),
        (reserved2(good), Status::ReservedNonZero),
        (entry(Op::ToDevice, DATA, 0, 0), Status::BadLength),
        (entry(Op::ToDevice, DATA, 0, 12), Status::BadLength),
        (
            entry(Op::ToDevice, DATA, 0, (2 << 20) + 8),
            Status::BadLength,
        ),
        (entry(Op::Nop, 0, 0, 8), Status::BadLength),
        (entry(Op::Nop, 8, 0, 0), Status::ReservedNonZero),
        (entry(Op::ToDevice, DATA, MEMORY, 8), Status::BadDeviceRange),
        (
            entry(Op::ToDevice, DATA, MEMORY - 8, 16),
            Status::BadDeviceRange,
        ),
        (entry(Op::ToDevice, DATA, 4, 8), Status::BadDeviceRange),
        (entry(Op::Fill, 0, u64::MAX - 7, 8), Status::BadDeviceRange),
        (entry(Op::Copy, MEMORY - 8, 0, 16), Status::BadDeviceRange),
        (entry(Op::Copy, 0, 8, 16), Status::Overlap),
        (entry(Op::Copy, 64, 64, 8), Status::Overlap),
        (entry(Op::ToDevice, DATA + 4, 0, 8), Status::BadGuestAddress),
        (
            entry(Op::ToSystem, u64::MAX - 7, 0, 8),
            Status::BadGuestAddress,
        ),
        (
            entry(Op::ToSystem, u64::MAX - 15, 0, 64),
            Status::BadGuestAddress,
        ),
        (entry(Op::ToSystem, 1 << 40, 0, 8), Status::BadGuestAddress),
        (
            entry(Op::ToSystem, end_of_region - 8, 0, 16),
            Status::BadGuestAddress,
        ),
        (
            entry(Op::ToSystem, (1 << 32) - 8, 0, 16),
            Status::BadGuestAddress,
        ),
    ];
    let entries: Vec<CopyEntry> = cases.iter().flat_map(|(entry, _)| [*entry, good]).collect();
    let answer = front_end.run(&entries);
    for (index, (entry, status)) in cases.iter().enumerate() {
        assert_eq!(answer.entry(2 * index), *status, "{entry:?}");
        assert_eq!(answer.entry(2 * index + 1), Status::Ok, "after {entry:?}");
    }
    assert_eq!(answer.status(), Status::BadOp, "that of the first");
    assert_eq!(answer.completion.first_error.get(), 0);
    assert_eq!(answer.completion.entries_ok.get() as usize, cases.len());
    assert_eq!(answer.completion.bytes_done.get() as usize, 8 * cases.len());
}

#[test]
fn batches_need_a_session_and_its_generation() {
    let process = Process::start(PROGRAM, &["--memory", "16M"]);
    let mut front_end = FrontEnd::start(&process.socket(), 1, &Layout::default());
    let fill = [CopyEntry::new(Op::Fill, 0, 0, 8)];
    front_end.generation = front_end.config().generation.get();
    assert_eq!(front_end.run(&fill).status(), Status::NoSession);
    let first = front_end.open();
    assert_eq!(front_end.run(&fill).status(), Status::Ok);
    assert_eq!(front_end.config().generation.get(), first);
    let second = front_end.open();
    assert_ne!(first, second);
    front_end.generation = first;
    assert_eq!(front_end.run(&fill).status(), Status::StaleGeneration);
    assert_eq!(
        front_end.run_urgent(&fill).status(),
        Status::StaleGeneration
    );
}

#[test]
fn bad_control_requests_are_answered() {
    let (_process, mut front_end) = start();
    let generation = front_end.generation;
    let request = ControlRequest::new;
    let spoilt = |kind, flags| {
        let mut request = request(ControlKind::Ping, 0, 5, 0, 0);
        request.kind = kind;
        request.flags = flags;
        request
    };
    let discard = |start, len| request(ControlKind::Discard, 0, 5, start, len);
    let mut reserved = request(ControlKind::Ping, 0, 5, 0, 0);
    reserved.reserved2 = U32::new(1);
    let cases = [
        (request(ControlKind::Ping, 0, 5, 0, 0), Status::Ok),
        (spoilt(0, 0), Status::BadOp),
        (spoilt(0x87, 0), Status::BadOp),
        (spoilt(0x80, 1), Status::BadFlags),
        (spoilt(0x81, 2), Status::BadFlags),
        (reserved, Status::ReservedNonZero),
        (
            request(ControlKind::Ping, 0, 5, 1, 0),
            Status::ReservedNonZero,
        ),
        (
            request(ControlKind::SessionOpen, 0, 5, 1, 0),
            Status::ReservedNonZero,
        ),
        (discard(0, 0), Status::BadDeviceRange),
        (discard(8, 4096), Status::BadDeviceRange),
        (discard(0, 100), Status::BadDeviceRange),
        (discard(MEMORY, 4096), Status::BadDeviceRange),
        (discard(u64::MAX - 4095, 4096), Status::BadDeviceRange),
        (discard(0, MEMORY), Status::Ok),
    ];
    for (request, status) in cases {
        let bytes = match request.kind {
            0x81 => front_end.session_request(request),
            _ => request.as_bytes().to_vec(),
        };
        let (reply, len) = front_end.control(&bytes);
        assert_eq!(reply.status, status.to_wire(), "{request:?}");
        assert_eq!(reply.cookie.get(), 5);
        assert_eq!(reply.generation.get(), generation, "{request:?}");
        assert_eq!((reply.reserved, reply.reserved2.get()), ([0; 7], 0));
        assert_eq!(len as usize, CONTROL_BYTES);
    }
    for len in [0usize, 1, 31, 33, 4096] {
        let (reply, _) = front_end.control(&vec![0x80; len.max(1)]);
        assert_eq!(reply.status, Status::BadLength.to_wire(), "{len} bytes");
        assert_eq!(reply.cookie.get(), 0);
    }
    let fill = [CopyEntry::new(Op::Fill, 0, 0, 8)];
    assert_eq!(front_end.run(&fill).status(), Status::Ok, "still open");
}

#[test]
fn discard_gives_zeros() {
    let (_process, mut front_end) = start();
    front_end.run(&[CopyEntry::new(Op::Fill, u64::MAX, 0, 64 << 10)]);
    let discard = ControlRequest::new(ControlKind::Discard, 0, 1, 4096, 8192);
    assert_eq!(front_end.control(discard.as_bytes()).0.status, 1);
    front_end.run(&[CopyEntry::new(Op::ToSystem, DATA, 0, 64 << 10)]);
    let home = front_end.guest.read(DATA, 64 << 10);
    assert!(home[..4096].iter().all(|byte| *byte == 0xff));
    assert!(home[4096..12288].iter().all(|byte| *byte == 0));
    assert!(home[12288..].iter().all(|byte| *byte == 0xff));
}

#[test]
fn a_record_without_room_for_its_array_is_refused() {
    let (_process, mut front_end) = start();
    let entries = [CopyEntry::new(Op::Fill, 0, 0, 8); 9];
    let request = front_end.entries(BatchFlags::STATUS_ARRAY, &entries);
    // Nine statuses need sixteen bytes; there are eight.
    let record = front_end.submit(3, &request, 8);
    front_end.rings[3].kick();
    let answer = front_end.answer(3, record, 0);
    assert_eq!(answer.status(), Status::BadLength);
    assert_eq!(answer.used_len, 32);
}

#[test]
fn a_header_of_the_other_kind_is_no_way_in() {
    let (_process, mut front_end) = start();
    let header = BatchHeader::new(
        BatchKind::PageList,
        BatchFlags::default(),
        1,
        9,
        front_end.generation,
    );
    let entry = CopyEntry::new(Op::ToDevice, DATA, 0, 4096);
    let request = [header.as_bytes(), entry.as_bytes(), &[0; 8]].concat();
    refused(
        &mut front_end,
        &request,
        Status::BadLength,
        "an entry as the head of a list",
    );
}
