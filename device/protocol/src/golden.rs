// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! Golden byte vectors: the layout as bytes, checked at compile time by both compilers and at run time by the tests.

use crate::{
    BatchHeader, Completion, Config, ControlReply, ControlRequest, CopyEntry, Event, PageList,
    SessionRequest,
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
    assert!(offset_of!(Event, generation) == 16);
};
