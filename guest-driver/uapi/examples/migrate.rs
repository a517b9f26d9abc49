// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! Moves 16 MiB of this process to the device and back, and says where they are in between.
//!
//! Usage: migrate [/dev/hmmN]

use hmm_uapi::client::{Device, Error, MigrateRequest, Process};
use hmm_uapi::{Direction, MigrateFlags};
use std::ops::Range;

const PAGE: usize = 4096;
const BYTES: usize = 16 << 20;

fn main() -> Result<(), Error> {
    let node = std::env::args().nth(1).unwrap_or("/dev/hmm0".into());
    let device = Device::open(node)?;
    // A range has whole pages; what is left over at both ends stays.
    let memory = vec![0x5a_u8; BYTES + PAGE];
    let start = (memory.as_ptr() as u64).next_multiple_of(PAGE as u64);
    let range = start..start + BYTES as u64;

    migrate(&device, range.clone(), Direction::ToDevice)?;
    print_residency(&device, range.clone())?;
    migrate(&device, range.clone(), Direction::ToSystem)?;
    print_residency(&device, range)?;
    assert!(memory.iter().all(|&byte| byte == 0x5a), "a byte is wrong");
    Ok(())
}

fn migrate(device: &Device, range: Range<u64>, direction: Direction) -> Result<(), Error> {
    let request = MigrateRequest {
        process: Process::Caller,
        range,
        direction,
        flags: MigrateFlags::default(),
    };
    // Goes on where a signal has ended a call.
    device.migrate_all(&request).map(drop)
}

fn print_residency(device: &Device, range: Range<u64>) -> Result<(), Error> {
    let counts = device.residency(Process::Caller, range)?;
    println!(
        "{} pages on the device, {} in system memory",
        counts.device_pages, counts.system_pages
    );
    Ok(())
}
