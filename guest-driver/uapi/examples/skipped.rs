// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! Tries to move memory of which a part cannot move, and says why it stayed.
//!
//! Usage: skipped [/dev/hmmN]

use hmm_uapi::client::{Device, Error, MigrateReport, MigrateRequest, Process};
use hmm_uapi::{Direction, MigrateFlags, SkipReason};

const PAGE: usize = 4096;
const PAGES: usize = 64;

fn main() -> Result<(), Error> {
    let node = std::env::args().nth(1).unwrap_or("/dev/hmm0".into());
    let device = Device::open(node)?;
    // The last 16 pages are never touched.
    let mut memory = vec![0_u8; (PAGES + 1) * PAGE];
    let offset = memory.as_ptr().align_offset(PAGE);
    memory[offset..offset + 48 * PAGE].fill(1);
    let report = migrate(&device, memory.as_ptr() as usize + offset, PAGES)?;
    println!(
        "{} pages moved; {} were holes",
        report.pages_moved,
        report.skipped.get(SkipReason::Hole)
    );
    // Code is page cache.
    let code = (main as fn() -> Result<(), Error>) as usize / PAGE * PAGE;
    for (reason, pages) in migrate(&device, code, 1)?.skipped.named() {
        println!("{pages} page of code stayed: {reason}");
    }
    Ok(())
}

fn migrate(device: &Device, start: usize, pages: usize) -> Result<MigrateReport, Error> {
    device.migrate_all(&MigrateRequest {
        process: Process::Caller,
        range: start as u64..(start + pages * PAGE) as u64,
        direction: Direction::ToDevice,
        flags: MigrateFlags::default(),
    })
}
