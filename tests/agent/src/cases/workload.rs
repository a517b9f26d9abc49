// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `workload/*`: programs for others to run and to move. They are cases in form only and never run by themselves.

use super::support::prelude::*;
use super::support::random::Random;
use std::os::unix::fs::FileExt;
use std::time::Duration;

pub(super) const CASES: &[Case] = &[
    Case::new("workload/memory", memory),
    Case::new("workload/processes", processes),
    Case::new("workload/sparse", sparse),
];

/// In the environment of a workload whose memory is being moved: it goes on until it has seen that.
pub(super) const MOVED: &str = "HMM_WORKLOAD_MOVED";
/// Rounds of a workload whose memory is not being moved.
const ROUNDS: u64 = 50;
/// How often the program wants to see its memory away.
const ENOUGH: u32 = 2;
/// How often a program at rest looks whether its memory is away, and how long it sleeps in between.
const LOOKS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(20);

/// Computes with a few MiB until they have been away several times. What it prints does not depend on that.
fn memory() -> Result<()> {
    let mut memory = Memory::anonymous(600)?;
    let mut sum = 0;
    let mut away = 0;
    let is_moved = std::env::var_os(MOVED).is_some();
    // The time limit of the case bounds the rounds of a workload that is moved.
    let rounds = if is_moved { u64::MAX } else { ROUNDS };
    for seed in 0..rounds {
        memory.fill(seed % 7);
        memory.check(seed % 7)?;
        if is_moved {
            rest(&memory)?;
            away += u32::from(is_away(&memory)?);
        }
        memory.check(seed % 7)?;
        if away == ENOUGH {
            break;
        }
    }
    memory.fill(99);
    let mut random = Random::new(1);
    for _ in 0..20_000 {
        let byte = memory.bytes()[random.below(memory.length())];
        sum = (sum * 31 + u64::from(byte)) % 1_000_000_007;
    }
    println!("{sum}");
    Ok(())
}

/// The same beside 16 TiB of addresses that have a page each TiB.
fn sparse() -> Result<()> {
    const TEBIBYTE: usize = (1 << 40) / PAGE;
    let mut vast = Memory::reserved(16 * TEBIBYTE)?;
    let pages = (0..16).map(|number| number * TEBIBYTE);
    for page in pages.clone() {
        vast.fill_pages(page..page + 1, 5);
    }
    memory()?;
    for page in pages {
        vast.check_pages(page..page + 1, 5)?;
    }
    Ok(())
}

/// The same in three processes, whose parent waits for them.
fn processes() -> Result<()> {
    let children = [fork(memory)?, fork(memory)?, fork(memory)?];
    children.into_iter().try_for_each(Child::wait)
}

/// Leaves the memory alone until some of it is away, or for a while: what is in use all the time may stay.
fn rest(memory: &Memory) -> Result<()> {
    for _ in 0..LOOKS {
        if is_away(memory)? {
            break;
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// Whether a page is not present, which for memory that was just used means that it went to the device.
fn is_away(memory: &Memory) -> Result<bool> {
    const PRESENT: u64 = 1 << 63;
    let mut entries = vec![0; memory.pages() * 8];
    let start = (memory.address() / PAGE * 8) as u64;
    std::fs::File::open("/proc/self/pagemap")?.read_exact_at(&mut entries, start)?;
    Ok(entries.chunks_exact(8).any(|entry| {
        let entry = entry
            .iter()
            .rev()
            .fold(0, |value, &byte| value << 8 | u64::from(byte));
        entry & PRESENT == 0
    }))
}
