// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Harts on several threads that work on the same words.

use crate::assembler as asm;
use crate::assembler::{AMO, x};
use hmm_hart::{Amo, Decoder, End, Hart, Memory, Pause, Register, Width};
use std::convert::Infallible;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::thread;

/// Words that all harts share, and code that they only read.
struct Shared<'a> {
    words: &'a [AtomicU32],
    code: &'a [u32],
}

const DATA: u64 = 0x1_0000;

impl Shared<'_> {
    fn word(&self, address: u64) -> &AtomicU32 {
        &self.words[(address - DATA) as usize / 4]
    }
}

impl Memory for Shared<'_> {
    type Miss = Infallible;

    fn fetch(&mut self, address: u64) -> Result<u32, Infallible> {
        assert_eq!(address % 4, 0, "this code has no compressed instructions");
        Ok(self.code[address as usize / 4])
    }

    fn load(&mut self, address: u64, width: Width) -> Result<u64, Infallible> {
        assert_eq!(width, Width::Word);
        Ok(self.word(address).load(SeqCst).into())
    }

    fn store(&mut self, address: u64, width: Width, value: u64) -> Result<(), Infallible> {
        assert_eq!(width, Width::Word);
        self.word(address).store(value as u32, SeqCst);
        Ok(())
    }

    fn amo(
        &mut self,
        address: u64,
        width: Width,
        amo: Amo,
        operand: u64,
    ) -> Result<u64, Infallible> {
        assert_eq!((width, amo), (Width::Word, Amo::Add));
        Ok(self.word(address).fetch_add(operand as u32, SeqCst).into())
    }

    fn load_reserved(&mut self, address: u64, width: Width) -> Result<u64, Infallible> {
        self.load(address, width)
    }

    fn compare_exchange(
        &mut self,
        address: u64,
        width: Width,
        expected: u64,
        new: u64,
    ) -> Result<bool, Infallible> {
        assert_eq!(width, Width::Word);
        let word = self.word(address);
        Ok(word
            .compare_exchange(expected as u32, new as u32, SeqCst, SeqCst)
            .is_ok())
    }

    fn time(&self) -> u64 {
        0
    }
}

/// Runs `code` on four threads, with `a1` = the shared words and `a2` = `rounds`, in slices of odd sizes.
fn run(code: &[u32], rounds: u64) -> Vec<AtomicU32> {
    let words: Vec<_> = (0..4).map(|_| AtomicU32::new(0)).collect();
    thread::scope(|scope| {
        for number in 0..4 {
            let words = &words;
            scope.spawn(move || {
                let mut hart = Hart::new(0);
                hart.set(Register::A1, DATA);
                hart.set(Register::A2, rounds);
                let mut memory = Shared { words, code };
                let mut decoder = Decoder::default();
                loop {
                    match hart.run(&mut memory, &mut decoder, 3 + 2 * number) {
                        Pause::Budget => {}
                        Pause::End(end) => break assert_eq!(end, End::Exit(0)),
                    }
                }
            });
        }
    });
    words
}

#[test]
fn no_atomic_addition_is_lost() {
    let code = [
        asm::addi(x::T0, 0, 1),
        asm::r(AMO, 2, 0, x::ZERO, x::A1, x::T0),
        asm::addi(x::A2, x::A2, -1),
        asm::b(1, x::A2, 0, -8),
        asm::ret(),
    ];
    assert_eq!(run(&code, 20_000)[0].load(SeqCst), 80_000);
}

#[test]
fn no_conditional_store_is_lost() {
    let code = [
        asm::r(AMO, 2, 2 << 2 | 2, x::T0, x::A1, 0),
        asm::addi(x::T0, x::T0, 1),
        asm::r(AMO, 2, 3 << 2 | 1, x::T1, x::A1, x::T0),
        asm::b(1, x::T1, 0, -12),
        asm::addi(x::A2, x::A2, -1),
        asm::b(1, x::A2, 0, -20),
        asm::ret(),
    ];
    assert_eq!(run(&code, 20_000)[0].load(SeqCst), 80_000);
}

#[test]
fn a_lock_of_conditional_stores_protects_plain_accesses() {
    let code = [
        // Takes the lock: words[1].
        asm::addi(x::A3, x::A1, 4),
        asm::r(AMO, 2, 2 << 2 | 2, x::T0, x::A3, 0),
        asm::b(1, x::T0, 0, -4),
        asm::addi(x::T0, 0, 1),
        asm::r(AMO, 2, 3 << 2, x::T1, x::A3, x::T0),
        asm::b(1, x::T1, 0, -16),
        // One more in words[0].
        asm::i(asm::LOAD, 2, x::T0, x::A1, 0),
        asm::addi(x::T0, x::T0, 1),
        asm::s(2, x::A1, x::T0, 0),
        // Gives the lock back.
        0x0310_000f,
        asm::s(2, x::A3, x::ZERO, 0),
        asm::addi(x::A2, x::A2, -1),
        asm::b(1, x::A2, 0, -44),
        asm::ret(),
    ];
    assert_eq!(run(&code, 2_000)[0].load(SeqCst), 8_000);
}
