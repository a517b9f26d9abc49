// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! Validation against rules written down a second time, in 128 bits, where nothing wraps.

use hmm_protocol::{
    BatchHeader, BatchKind, Config, ControlKind, ControlRequest, CopyEntry, Features, Limits, Op,
    PageList, Status,
};
use proptest::prelude::*;
use zerocopy::{
    byteorder::little_endian::{U16, U32, U64},
    FromBytes,
};

const LIMITS: Limits = Limits {
    memory_bytes: 16 << 20,
    max_batch_entries: 4096,
    max_urgent_entries: 512,
    max_entry_bytes: 2 << 20,
    max_batch_bytes: 64 << 20,
    bulk_queues: 1,
};

/// Numbers near the borders that matter, and any others.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        0u64..=64,
        (0u64..=64).prop_map(|below| u64::MAX - below),
        (0u64..=64).prop_map(|near| LIMITS.memory_bytes - 32 + near),
        (0u64..=8192).prop_map(|page| page * 4096),
        (0u64..=(2 << 20)).prop_map(|word| word * 8),
        any::<u64>(),
    ]
}

/// Mostly zero, as it should be.
fn reserved() -> impl Strategy<Value = u64> {
    prop_oneof![9 => Just(0u64), 1 => any::<u64>()]
}

/// Any set of features.
fn features() -> impl Strategy<Value = Features> {
    prop_oneof![
        Just(Features::ALL),
        Just(
            Features::ALL
                .union(Features::CONTEXTS)
                .union(Features::ACCESS_BITS)
        ),
        (0..=Features::ALL.0).prop_map(Features)
    ]
}

fn length() -> impl Strategy<Value = u32> {
    prop_oneof![
        0u32..=64,
        (0u32..=600).prop_map(|page| page * 4096),
        any::<u32>()
    ]
}

fn in_memory(start: u64, len: u64) -> bool {
    u128::from(start) + u128::from(len) <= u128::from(LIMITS.memory_bytes) && start % 8 == 0
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn entries(
        op in prop_oneof![0u8..8, any::<u8>()],
        flags in prop_oneof![Just(0u8), 0u8..16, any::<u8>()],
        reserved1 in reserved(), reserved2 in reserved(),
        len in length(), address in number(), device in number(), features in features(),
    ) {
        let entry = CopyEntry {
            op, flags,
            reserved: U16::new(reserved1 as u16),
            len: U32::new(len),
            address: U64::new(address),
            device_address: U64::new(device),
            reserved2: U64::new(reserved2),
        };
        let long = u64::from(len);
        let has = |feature| features.contains(feature);
        let expected = if !(1..=5).contains(&op)
            || (op == 3 && !has(Features::DEVICE_COPY))
            || (op == 4 && !has(Features::FILL))
        {
            Err(Status::BadOp)
        } else if flags > 7 || (flags & 2 != 0 && (op != 2 || !has(Features::SCRUB))) {
            Err(Status::BadFlags)
        } else if reserved1 as u16 != 0 || reserved2 != 0 {
            Err(Status::ReservedNonZero)
        } else if op == 5 {
            if len != 0 { Err(Status::BadLength) }
            else if address != 0 || device != 0 { Err(Status::ReservedNonZero) }
            else { Ok(Op::Nop) }
        } else if len == 0 || len % 8 != 0 || len > LIMITS.max_entry_bytes {
            Err(Status::BadLength)
        } else if !in_memory(device, long) || (op == 3 && !in_memory(address, long)) {
            Err(Status::BadDeviceRange)
        } else if op == 3 && address < device + long && device < address + long {
            Err(Status::Overlap)
        } else if op <= 2 && (address % 8 != 0 || u128::from(address) + u128::from(long) > u128::from(u64::MAX)) {
            Err(Status::BadGuestAddress)
        } else {
            Ok(Op::from_wire(op).expect("1 to 5"))
        };
        prop_assert_eq!(entry.validate(&LIMITS, features), expected);
    }

    #[test]
    fn headers(
        kind in prop_oneof![0u8..4, any::<u8>()],
        flags in prop_oneof![0u8..16, any::<u8>()],
        entry_bytes in prop_oneof![Just(8u16), Just(32u16), any::<u16>()],
        count in prop_oneof![0u32..=5000, any::<u32>()],
        reserved in reserved(), max in 1u32..=4096, features in features(),
    ) {
        let header = BatchHeader {
            kind, flags,
            entry_bytes: U16::new(entry_bytes),
            entry_count: U32::new(count),
            cookie: U64::new(1),
            generation: U64::new(2),
            reserved: U64::new(reserved),
        };
        let has = |feature| features.contains(feature);
        let expected = if kind != 1 && (kind != 2 || !has(Features::PAGE_LIST)) {
            Err(Status::BadOp)
        } else if flags > 7 || (flags & 4 != 0 && !has(Features::STATUS_ARRAY)) {
            Err(Status::BadFlags)
        } else if reserved != 0 {
            Err(Status::ReservedNonZero)
        } else if entry_bytes != (if kind == 1 { 32 } else { 8 }) {
            Err(Status::BadLength)
        } else if !(1..=max).contains(&count) {
            Err(Status::BadCount)
        } else {
            Ok(if kind == 1 { BatchKind::Entries } else { BatchKind::PageList })
        };
        prop_assert_eq!(header.validate(max, features), expected);
    }

    #[test]
    fn page_lists(
        op in prop_oneof![0u8..8, any::<u8>()],
        flags in prop_oneof![Just(0u8), 0u8..16, any::<u8>()],
        shift in prop_oneof![3 => Just(12u32), 1 => any::<u32>()],
        device in number(), reserved1 in reserved(), reserved2 in reserved(), pages in 1u32..=4096,
        features in features(),
    ) {
        let list = PageList {
            op, flags,
            reserved: U16::new(reserved1 as u16),
            page_shift: U32::new(shift),
            device_address: U64::new(device),
            reserved2: [U64::new(0), U64::new(reserved2)],
        };
        let expected = if op != 1 && op != 2 {
            Err(Status::BadOp)
        } else if flags & !6 != 0
            || (flags & 2 != 0 && (op != 2 || !features.contains(Features::SCRUB)))
        {
            Err(Status::BadFlags)
        } else if reserved1 as u16 != 0 || reserved2 != 0 {
            Err(Status::ReservedNonZero)
        } else if shift != 12 {
            Err(Status::BadLength)
        } else if device % 4096 != 0 || !in_memory(device, u64::from(pages) * 4096) {
            Err(Status::BadDeviceRange)
        } else {
            Ok(Op::from_wire(op).expect("1 or 2"))
        };
        prop_assert_eq!(list.validate(pages, &LIMITS, features), expected);
    }

    #[test]
    fn control_requests(
        kind in prop_oneof![0x7fu8..0x88, any::<u8>()],
        flags in prop_oneof![2 => Just(0u8), 1 => 0u8..4],
        reserved1 in reserved(), first in number(), second in number(), features in features(),
    ) {
        let request = ControlRequest {
            kind, flags,
            reserved: U16::new(reserved1 as u16),
            reserved2: U32::new(0),
            cookie: U64::new(3),
            argument0: U64::new(first),
            argument1: U64::new(second),
        };
        let allowed = if kind == 0x81 || kind == 0x86 { 1 } else { 0 };
        let whole_pages = first % 4096 == 0 && second % 4096 == 0 && second != 0;
        let has = |feature| features.contains(feature);
        let expected = if !(0x80..=0x86).contains(&kind)
            || (kind == 0x82 && !has(Features::DISCARD))
            || ((0x83..=0x85).contains(&kind) && !has(Features::CONTEXTS))
            || (kind == 0x86 && !has(Features::ACCESS_BITS))
        {
            Err(Status::BadOp)
        } else if flags & !allowed != 0 {
            Err(Status::BadFlags)
        } else if reserved1 as u16 != 0
            || (kind == 0x80 && (first != 0 || second != 0))
            || (kind == 0x81 && (second != 0 || (flags == 0 && first != 0)))
            || ((0x83..=0x85).contains(&kind) && second != 0)
        {
            Err(Status::ReservedNonZero)
        } else if (kind == 0x82 && !(whole_pages && in_memory(first, second)))
            || (kind == 0x86 && (first >= 8 || second % 64 != 0 || second == 0 || second > 32768))
        {
            Err(Status::BadDeviceRange)
        } else {
            Ok(ControlKind::from_wire(kind).expect("a kind"))
        };
        prop_assert_eq!(request.validate(LIMITS.memory_bytes, features), expected);
    }

    #[test]
    fn no_configuration_space_panics(bytes: [u8; 64], more: [u8; 64]) {
        let all = [bytes, more].concat();
        let config = Config::read_from_bytes(&all).expect("128 bytes");
        prop_assert!(config.validate().is_err(), "the magic number is there by chance");
    }
}
