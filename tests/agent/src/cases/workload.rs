// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `workload/*`: programs for others to run and to move. They are cases in form only and never run by themselves.

use super::support::prelude::*;
use super::support::random::Random;
use std::os::unix::fs::FileExt;

pub(super) const CASES: &[Case] = &[
    Case::new("workload/memory", memory),
    Case::new("workload/processes", processes),
    Case::new("workload/sparse", sparse),
];

/// Rounds after which the program ends, whether or not anybody moves its memory.
const ROUNDS: u64 = 150;
/// How often the program wants to see its memory away.
const ENOUGH: u32 = 4;

/// Computes with a few MiB until they have been away several times. What it prints does not depend on that.
fn memory() -> Result<()> {
    let mut memory = Memory::anonymous(600)?;
    let mut sum = 0;
    let mut away = 0;
    for seed in 0..ROUNDS {
        memory.fill(seed % 7);
        memory.check(seed % 7)?;
        away += u32::from(is_away(&memory)?);
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
