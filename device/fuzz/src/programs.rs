// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Code of any bytes on two harts: one runs at a stretch on memory that is all there, the other in slices on memory whose
//! pages go away now and then. What they leave behind must be the same.

use hmm_hart::{
    Decoder, Hart, Pause, Register,
    plain::{Missing, PAGE_BYTES, Permission, Plain},
};

/// Where the memory begins, bytes.
const BASE: u64 = 0x4_0000;
const PAGES: usize = 8;
/// Where a program begins: the last instructions of the second page, so that most programs are in two pages.
const ENTRY: u64 = BASE + 2 * PAGE_BYTES as u64 - 16;
/// Instructions of a program, at most.
const STEPS: u64 = 2000;

/// Pages that go away, in an order that the input chooses.
struct Chance(u64);

impl Chance {
    fn next(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        (self.0 >> 33) % bound
    }
}

/// The first 8 bytes choose where the data pointers point and how often pages go away; the rest is code.
pub fn run(data: &[u8]) {
    let Some((head, code)) = data.split_first_chunk::<8>() else {
        return;
    };
    let mut memory = Plain::new(BASE, PAGES);
    for (index, byte) in memory.bytes_mut().iter_mut().enumerate() {
        *byte = ((index * 31) >> 2) as u8;
    }
    let at = (ENTRY - BASE) as usize;
    let room = &mut memory.bytes_mut()[at..];
    let len = code.len().min(room.len());
    room[..len].copy_from_slice(&code[..len]);

    let pointer = |low: u8, high: u8| BASE + u64::from(u16::from_le_bytes([low, high]) & 0x7fff);
    let mut hart = Hart::new(ENTRY);
    hart.set(Register::A0, pointer(head[0], head[1]));
    hart.set(Register::A1, pointer(head[2], head[3] & 0xf0) & !7);
    hart.set(Register::A2, u64::from_le_bytes(*head));
    hart.set(Register::Sp, BASE + (PAGES * PAGE_BYTES) as u64);
    hart.set(Register::A7, u64::from(head[4] & 1) * 93);

    let mut decoder = Decoder::default();
    let mut whole = (hart.clone(), memory.clone());
    let end = whole.0.run(&mut whole.1, &mut decoder, STEPS);

    let mut chance = Chance(u64::from_le_bytes(*head));
    let interrupted = interrupt(&mut hart, &mut memory, &mut decoder, &mut chance);
    assert_eq!(interrupted, end);
    assert_eq!(hart.registers(), whole.0.registers());
    assert_eq!(hart.program_counter(), whole.0.program_counter());
    assert_eq!(hart.retired(), whole.0.retired());
    assert!(memory.bytes() == whole.1.bytes());
}

/// Runs a hart for [`STEPS`] instructions. A page that misses is made to permit what was wanted, until another one goes away.
fn interrupt(
    hart: &mut Hart,
    memory: &mut Plain,
    decoder: &mut Decoder,
    chance: &mut Chance,
) -> Pause<Missing> {
    memory.permit_all(Permission::Nothing);
    loop {
        let left = STEPS - hart.retired();
        if left == 0 {
            return Pause::Budget;
        }
        let before = hart.clone();
        let slice = (1 + chance.next(40)).min(left);
        match hart.run(memory, decoder, slice) {
            Pause::Budget => {}
            Pause::Miss(missing) => {
                let needed = match missing.write {
                    true => Permission::Write,
                    false => Permission::Read,
                };
                if hart.retired() == before.retired() {
                    assert_eq!(hart.registers(), before.registers());
                    assert_eq!(hart.program_counter(), before.program_counter());
                }
                assert!(memory.permission(missing.address) < needed);
                memory.permit(missing.address, needed);
                if memory.permission(missing.address) < needed {
                    // It is outside.
                    return Pause::Miss(missing);
                }
            }
            end @ Pause::End(_) => return end,
        }
        if chance.next(8) == 0 {
            let page = chance.next(PAGES as u64);
            let permission = [Permission::Nothing, Permission::Read][chance.next(2) as usize];
            memory.permit(BASE + page * PAGE_BYTES as u64, permission);
        }
    }
}
