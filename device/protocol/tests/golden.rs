// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! The golden vectors, from both directions.

use hmm_protocol::{
    golden, BatchFlags, BatchHeader, BatchKind, Completion, Config, ControlKind, ControlReply,
    ControlRequest, CopyEntry, Event, EventKind, FaultAccess, Features, Job, JobFlags, JobKind,
    MapEntry, MapFlags, MapHeader, Op, PageList, Report, ReportKind, SessionFlags, SessionRequest,
    Status, CONFIG_BYTES, MAGIC,
};
use zerocopy::{FromBytes, IntoBytes};

#[test]
fn what_is_built_has_the_golden_bytes() {
    let header = BatchHeader::new(
        BatchKind::PageList,
        BatchFlags::STATUS_ARRAY,
        512,
        0x1122_3344_5566_7788,
        7,
    );
    assert_eq!(header.as_bytes(), golden::BATCH_HEADER);
    let entry = CopyEntry::new(Op::ToDevice, 0x1_2340_0000, 0x20_0000, 2 << 20);
    assert_eq!(entry.as_bytes(), golden::COPY_ENTRY);
    let list = PageList::new(Op::ToSystem, 12, 0x40_0000);
    assert_eq!(list.as_bytes(), golden::PAGE_LIST);
    let request = ControlRequest::new(
        ControlKind::SessionOpen,
        SessionFlags::ADOPT.0,
        9,
        0x0102_0304_0506_0708,
        0,
    );
    assert_eq!(request.as_bytes(), golden::CONTROL_REQUEST);
    let header = MapHeader::new(BatchFlags::default(), 2, 5, 7, 3);
    assert_eq!(header.as_bytes(), golden::MAP_HEADER);
    let flags = MapFlags::READ
        .union(MapFlags::WRITE)
        .union(MapFlags::DEVICE);
    let entry = MapEntry::map(0x7f00_0020_0000, 4 << 20, 0x40_0000, flags, 21);
    assert_eq!(entry.as_bytes(), golden::MAP_ENTRY);
    let job = Job::new(
        JobKind::Copy,
        JobFlags::NO_FAULT,
        3,
        9,
        7,
        &[0x1000, 0x2000, 4096],
    );
    assert_eq!(job.as_bytes(), golden::JOB);
}

#[test]
fn a_golden_report_has_the_meaning_that_is_written_down() {
    let report = Report::read_from_bytes(&golden::REPORT).expect("64 bytes");
    assert_eq!(ReportKind::from_wire(report.kind), Some(ReportKind::Fault));
    assert_eq!(FaultAccess(report.status), FaultAccess::WRITE);
    assert_eq!((report.context.get(), report.cookie.get()), (3, 9));
    assert_eq!((report.value.get(), report.amount.get()), (4, 8192));
    assert_eq!(report.address.get(), 0x7f00_0000_0123);
}

#[test]
fn golden_bytes_have_the_meaning_that_is_written_down() {
    let header = BatchHeader::read_from_bytes(&golden::BATCH_HEADER).expect("32 bytes");
    assert_eq!(header.validate(512, Features::ALL), Ok(BatchKind::PageList));
    assert_eq!(header.entry_count.get(), 512);
    assert_eq!(header.generation.get(), 7);
    let entry = CopyEntry::read_from_bytes(&golden::COPY_ENTRY).expect("32 bytes");
    assert_eq!((entry.op, entry.len.get()), (1, 2 << 20));
    let list = PageList::read_from_bytes(&golden::PAGE_LIST).expect("32 bytes");
    assert_eq!((list.op, list.device_address.get()), (2, 0x40_0000));
    let request = ControlRequest::read_from_bytes(&golden::CONTROL_REQUEST).expect("32 bytes");
    assert_eq!(
        request.validate(1 << 30, Features::ALL),
        Ok(ControlKind::SessionOpen)
    );
    assert_eq!(request.argument0.get(), 0x0102_0304_0506_0708);
    let keyed = SessionRequest::read_from_bytes(&golden::SESSION_REQUEST).expect("48 bytes");
    assert_eq!(keyed.request.as_bytes(), golden::CONTROL_REQUEST);
    assert_eq!(keyed.key, std::array::from_fn(|index| index as u8));
}

/// Bytes 0, 1, 2 … tell where each field of a record lies, and in which byte order it is.
#[test]
fn fields_lie_where_the_documents_say() {
    let bytes: [u8; CONFIG_BYTES] = std::array::from_fn(|index| index as u8);
    let number = |at: usize, len: usize| {
        bytes[at..at + len]
            .iter()
            .rev()
            .fold(0u64, |number, byte| (number << 8) | u64::from(*byte))
    };
    let record = Completion::read_from_bytes(&bytes[..32]).expect("32 bytes");
    assert_eq!(u64::from(record.status), number(0, 1));
    assert_eq!(u64::from(record.entries_ok.get()), number(4, 4));
    assert_eq!(record.bytes_done.get(), number(8, 8));
    assert_eq!(u64::from(record.first_error.get()), number(16, 4));
    assert_eq!(u64::from(record.device_ns.get()), number(20, 4));
    assert_eq!(record.cookie.get(), number(24, 8));
    let reply = ControlReply::read_from_bytes(&bytes[..32]).expect("32 bytes");
    assert_eq!(u64::from(reply.status), number(0, 1));
    assert_eq!(reply.cookie.get(), number(8, 8));
    assert_eq!(reply.generation.get(), number(16, 8));
    let event = Event::read_from_bytes(&bytes[..32]).expect("32 bytes");
    assert_eq!(u64::from(event.kind), number(0, 1));
    assert_eq!(u64::from(event.queue.get()), number(2, 2));
    assert_eq!(event.value.get(), number(8, 8));
    assert_eq!(event.generation.get(), number(16, 8));
    let config = Config::read_from_bytes(&bytes).expect("128 bytes");
    assert_eq!(u64::from(config.magic.get()), number(0, 4));
    assert_eq!(u64::from(config.version_major.get()), number(4, 2));
    assert_eq!(u64::from(config.version_minor.get()), number(6, 2));
    assert_eq!(config.memory_bytes.get(), number(8, 8));
    assert_eq!(u64::from(config.page_bytes.get()), number(16, 4));
    assert_eq!(u64::from(config.max_batch_entries.get()), number(20, 4));
    assert_eq!(u64::from(config.max_entry_bytes.get()), number(24, 4));
    assert_eq!(u64::from(config.max_urgent_entries.get()), number(28, 4));
    assert_eq!(config.capabilities.get(), number(32, 8));
    assert_eq!(config.generation.get(), number(40, 8));
    assert_eq!(config.uuid, bytes[48..64]);
    assert_eq!(u64::from(config.bulk_queues.get()), number(64, 4));
    assert_eq!(u64::from(config.preferred_alignment.get()), number(68, 4));
    assert_eq!(config.max_batch_bytes.get(), number(72, 8));
    assert_eq!(u64::from(config.health.get()), number(80, 4));
    assert_eq!(MAGIC.to_le_bytes(), *b"HMMD");
}

#[test]
fn codes_are_what_the_documents_say() {
    let expected = [
        (0x00, "not-attempted"),
        (0x01, "ok"),
        (0x10, "bad-op"),
        (0x11, "bad-flags"),
        (0x12, "reserved-nonzero"),
        (0x13, "bad-length"),
        (0x14, "bad-count"),
        (0x15, "bad-device-range"),
        (0x16, "overlap"),
        (0x17, "bad-guest-address"),
        (0x18, "bad-address"),
        (0x19, "stale-generation"),
        (0x1a, "no-session"),
        (0x1b, "bad-context"),
        (0x1c, "bad-fault"),
        (0x20, "poison"),
        (0x21, "busy"),
        (0x24, "unmapped"),
        (0x25, "forbidden"),
        (0x26, "no-memory"),
        (0x27, "fault-timeout"),
        (0x28, "stalled"),
        (0x29, "illegal-instruction"),
        (0x2a, "misaligned"),
        (0x2b, "breakpoint"),
        (0x2c, "limit"),
        (0x30, "cancelled"),
        (0x3f, "internal"),
    ];
    for byte in 0..=u8::MAX {
        let known = expected.iter().find(|(code, _)| *code == byte);
        let found = Status::from_wire(byte);
        assert_eq!(found.map(Status::name), known.map(|(_, name)| *name));
        assert_eq!(found.map(Status::to_wire), known.map(|(code, _)| *code));
        let kind = EventKind::from_wire(byte);
        assert_eq!(
            kind.map(|kind| kind as u8),
            (1..=4).contains(&byte).then_some(byte)
        );
        let op = Op::from_wire(byte);
        assert_eq!(
            op.map(|op| op as u8),
            (1..=5).contains(&byte).then_some(byte)
        );
        let kind = ControlKind::from_wire(byte);
        assert_eq!(
            kind.map(|kind| kind as u8),
            (0x80..=0x86).contains(&byte).then_some(byte)
        );
    }
}
