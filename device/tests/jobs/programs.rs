// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Programs: RV64IMAC code in the guest's memory.
//!
//! - `calls`: arguments, stacks, results, harts.
//! - `faults`: pages that come and go under a program.
//! - `bad_ends`: programs that cannot go on.
//! - `together`: harts, jobs and the guest's processor on the same words.

mod bad_ends;
mod calls;
mod faults;
mod together;

use hmm_front_end::{DATA, FrontEnd};
use hmm_protocol::{Job, JobFlags, JobKind, MapEntry, MapFlags};

use crate::{ALL, BASE, CONTEXT, PAGE, map};

/// Where the code is in the context and in the guest's memory.
const CODE: u64 = BASE;
/// Where the data begin.
const WORDS: u64 = BASE + 0x10_0000;
/// Where the stack of hart 0 ends.
const STACKS: u64 = BASE + 0x20_0000;
/// Bytes of stack of each hart.
const STACK: u64 = 4096;

/// Where an address of these tests is in the guest's memory.
fn guest(address: u64) -> u64 {
    DATA + (address - BASE)
}

/// Writes code.
fn write_code(front_end: &FrontEnd, words: &[u32]) {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    front_end.guest.write(guest(CODE), &bytes);
}

/// Maps code, 16 pages of words and 16 stacks.
fn map_all(front_end: &mut FrontEnd) {
    let entry = |at: u64, pages: u64, flags| MapEntry::map(at, pages * PAGE, guest(at), flags, 12);
    let entries = [
        entry(CODE, 1, MapFlags::READ),
        entry(WORDS, 16, ALL),
        entry(
            STACKS - 16 * STACK,
            16,
            MapFlags::READ.union(MapFlags::WRITE),
        ),
    ];
    map(front_end, &entries);
}

/// What a program is started with beside its code.
#[derive(Clone, Copy, Default)]
struct Call {
    flags: JobFlags,
    harts: u64,
    /// Most instructions of a hart.
    instructions: u64,
    milliseconds: u64,
    arguments: [u64; 6],
}

impl Call {
    fn arguments(&self) -> [u64; 12] {
        let [a, b, c, d, e, gp] = self.arguments;
        let harts = self.harts.max(1);
        [
            CODE,
            STACKS,
            STACK,
            harts,
            self.instructions,
            self.milliseconds,
            a,
            b,
            c,
            d,
            e,
            gp,
        ]
    }

    fn job(&self, front_end: &FrontEnd) -> Job {
        front_end.job(JobKind::Program, self.flags, CONTEXT, &self.arguments())
    }
}

fn word(front_end: &FrontEnd, address: u64) -> u64 {
    let bytes = front_end.guest.read(guest(address), 8);
    u64::from_le_bytes(bytes.try_into().expect("8 bytes"))
}
