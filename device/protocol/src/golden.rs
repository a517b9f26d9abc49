// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! Golden byte vectors: the layout as bytes, checked at compile time by both compilers and at run time by the tests.

use crate::{
    BatchHeader, Completion, Config, ControlReply, ControlRequest, CopyEntry, Event, Job, MapEntry,
    MapHeader, PageList, Report, SessionRequest,
};
use core::mem::{offset_of, size_of};

/// A header: page list of 512 entries with a status array, cookie 0x1122334455667788, generation 7.
pub const BATCH_HEADER: [u8; 32] = [
    2, 4, 8, 0, 0, 2, 0, 0, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 7, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0,
];

/// An entry: 2 MiB from guest address 0x1_2340_0000 to device offset 0x20_0000.
pub const COPY_ENTRY: [u8; 32] = [
    1, 0, 0, 0, 0, 0, 0x20, 0, 0, 0, 0x40, 0x23, 1, 0, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0,
];

/// A page list: to system memory, 4 KiB pages, from device offset 0x40_0000.
pub const PAGE_LIST: [u8; 32] = [
    2, 0, 0, 0, 12, 0, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0,
];

/// A control request: open a session, adopt generation 0x0102030405060708, cookie 9.
pub const CONTROL_REQUEST: [u8; 32] = [
    0x81, 1, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0, 0, 0, 0, 0, 0,
    0,
];

/// The same where keys were negotiated: with key 00, 01 … 0f.
pub const SESSION_REQUEST: [u8; 48] = [
    0x81, 1, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
];

/// A header on the MMU queue: 2 entries, cookie 5, generation 7, context 3.
pub const MAP_HEADER: [u8; 32] = [
    3, 0, 32, 0, 2, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0,
];

/// An entry: map 4 MiB from virtual address 0x7f00_0020_0000 to device offset 0x40_0000, in 2 MiB pages, to read and write.
pub const MAP_ENTRY: [u8; 32] = [
    1, 11, 21, 0, 0, 0, 0, 0, 0, 0, 0x20, 0, 0, 0x7f, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0, 0x40,
    0, 0, 0, 0, 0,
];

/// A job: copy 4096 bytes from virtual address 0x2000 to 0x1000, without page faults, context 3, cookie 9, generation 7.
pub const JOB: [u8; 128] = {
    let mut bytes = [0; 128];
    bytes[0] = 2;
    bytes[1] = 1;
    bytes[4] = 3;
    bytes[8] = 9;
    bytes[16] = 7;
    bytes[25] = 0x10;
    bytes[33] = 0x20;
    bytes[41] = 0x10;
    bytes
};

/// A report: the job with cookie 9 of context 3 wants to write 8192 bytes from virtual address 0x7f00_0000_0123 on; the fault has the number 4.
pub const REPORT: [u8; 64] = {
    let mut bytes = [0; 64];
    bytes[0] = 1;
    bytes[1] = 2;
    bytes[4] = 3;
    bytes[8] = 9;
    bytes[16] = 4;
    bytes[24] = 0x23;
    bytes[25] = 0x01;
    bytes[29] = 0x7f;
    bytes[33] = 0x20;
    bytes
};

const _: () = {
    assert!(size_of::<BatchHeader>() == crate::HEADER_BYTES);
    assert!(size_of::<CopyEntry>() == crate::ENTRY_BYTES);
    assert!(size_of::<PageList>() == crate::PAGE_LIST_BYTES);
    assert!(size_of::<Completion>() == crate::COMPLETION_BYTES);
    assert!(size_of::<ControlRequest>() == crate::CONTROL_BYTES);
    assert!(size_of::<SessionRequest>() == crate::SESSION_REQUEST_BYTES);
    assert!(offset_of!(SessionRequest, key) == 32);
    assert!(size_of::<ControlReply>() == crate::CONTROL_BYTES);
    assert!(size_of::<Event>() == crate::EVENT_BYTES);
    assert!(size_of::<Config>() == crate::CONFIG_BYTES);
    assert!(offset_of!(BatchHeader, generation) == 16);
    assert!(offset_of!(CopyEntry, device_address) == 16);
    assert!(offset_of!(Completion, first_error) == 16);
    assert!(offset_of!(Completion, cookie) == 24);
    assert!(offset_of!(Config, capabilities) == 32);
    assert!(offset_of!(Config, generation) == 40);
    assert!(offset_of!(Config, uuid) == 48);
    assert!(offset_of!(Config, bulk_queues) == 64);
    assert!(offset_of!(Config, max_batch_bytes) == 72);
    assert!(offset_of!(Config, health) == 80);
    assert!(offset_of!(Config, job_queues) == 84);
    assert!(offset_of!(Config, reserved) == 108);
    assert!(offset_of!(Event, generation) == 16);
    assert!(size_of::<MapHeader>() == crate::MAP_HEADER_BYTES);
    assert!(offset_of!(MapHeader, context) == 24);
    assert!(size_of::<MapEntry>() == crate::MAP_ENTRY_BYTES);
    assert!(offset_of!(MapEntry, target) == 24);
    assert!(size_of::<Job>() == crate::JOB_BYTES);
    assert!(offset_of!(Job, arguments) == 24);
    assert!(size_of::<Report>() == crate::REPORT_BYTES);
    assert!(offset_of!(Report, program_counter) == 40);
};
