// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! Begins to move memory to the device, works on other memory meanwhile, and asks now and then how far it is.
//!
//! Usage: prefetch [/dev/hmmN]

use hmm_uapi::client::{Device, Error, PrefetchRequest, Process};
use hmm_uapi::{Direction, MigrateFlags, PrefetchState};
use std::hint::black_box;

const PAGE: usize = 4096;
const BYTES: usize = 64 << 20;

fn main() -> Result<(), Error> {
    let node = std::env::args().nth(1).unwrap_or("/dev/hmm0".into());
    let device = Device::open(node)?;
    let memory = vec![1_u8; BYTES + PAGE];
    let start = (memory.as_ptr() as u64).next_multiple_of(PAGE as u64);

    let id = device.prefetch(&PrefetchRequest {
        process: Process::Caller,
        range: start..start + BYTES as u64,
        direction: Some(Direction::ToDevice),
        flags: MigrateFlags::default(),
    })?;
    let mut work = 1_u64;
    let end = loop {
        for _ in 0..100_000 {
            work = black_box(work.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        }
        // `Device::wait` would wait for the end.
        let report = device.prefetch_state(id)?;
        if report.state != PrefetchState::Running {
            break report;
        }
    };
    assert!(
        end.state == PrefetchState::Done,
        "the prefetch ended before the end of its range: {:?}",
        end.error
    );
    println!("{} pages moved", end.pages_moved);
    Ok(())
}
