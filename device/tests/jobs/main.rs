// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Jobs through the whole path: a front end that plays the driver, and the real process.

#[path = "../../hart/tests/hart/assembler.rs"]
mod assembler;
mod ends;
mod injected;
mod kinds;
mod page_faults;
mod programs;
mod refused;
mod storm;

use hmm_front_end::{FrontEnd, Layout, Process};
use hmm_protocol::{ControlKind, MapEntry, MapFlags, Status};

const PROGRAM: &str = env!("CARGO_BIN_EXE_vhost-user-hmm");
/// The context that most tests use.
const CONTEXT: u32 = 7;
/// Where memory is in the context.
const BASE: u64 = 0x7000_0000_0000;
const PAGE: u64 = 4096;
const BLOCK: u64 = 2 << 20;
/// Read, write and atomic, in the guest's memory.
const ALL: MapFlags = MapFlags::PERMISSIONS;
/// The same in the device's memory.
const DEVICE: MapFlags = MapFlags::ALL;

/// A device with 16 MiB, and a driver with an open session and a context.
fn start(arguments: &[&str]) -> (Process, FrontEnd) {
    let process = Process::start(PROGRAM, &[&["--memory", "16M"], arguments].concat());
    let mut front_end = FrontEnd::start(&process.socket(), 1, &Layout::default());
    open(&mut front_end);
    (process, front_end)
}

fn open(front_end: &mut FrontEnd) {
    front_end.open();
    create(front_end, CONTEXT);
}

fn create(front_end: &mut FrontEnd, context: u32) {
    let status = front_end.ask(ControlKind::ContextCreate, u64::from(context), 0);
    assert_eq!(status, Status::Ok);
}

/// Changes the context's page tables, which must succeed.
fn map(front_end: &mut FrontEnd, entries: &[MapEntry]) {
    let answer = front_end.change(CONTEXT, entries);
    assert_eq!(answer.status(), Status::Ok, "{entries:?}");
}

/// Maps `pages` pages of the guest's memory from `guest` on at `address`, in reverse order, so that none is next to its
/// neighbour.
fn map_reversed(front_end: &mut FrontEnd, address: u64, guest: u64, pages: u64, flags: MapFlags) {
    let entries: Vec<MapEntry> = (0..pages)
        .map(|page| {
            let target = guest + (pages - 1 - page) * PAGE;
            MapEntry::map(address + page * PAGE, PAGE, target, flags, 12)
        })
        .collect();
    map(front_end, &entries);
}

/// Writes `bytes` to where [`map_reversed`] mapped them, `at` bytes into the range.
fn write_reversed(front_end: &FrontEnd, guest: u64, pages: u64, at: u64, bytes: &[u8]) {
    for (index, byte) in bytes.iter().enumerate() {
        let at = at + index as u64;
        let page = pages - 1 - at / PAGE;
        (front_end.guest).write(guest + page * PAGE + at % PAGE, &[*byte]);
    }
}

/// The bytes of all pages that [`map_reversed`] mapped, in the order of their virtual addresses.
fn read_reversed(front_end: &FrontEnd, guest: u64, pages: u64) -> Vec<u8> {
    (0..pages)
        .flat_map(|page| (front_end.guest).read(guest + (pages - 1 - page) * PAGE, PAGE as usize))
        .collect()
}
