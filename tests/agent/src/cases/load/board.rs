// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the processes of the load know of each other: a few words of shared memory.

use super::operation::Operation;
use crate::cases::support::prelude::*;
use crate::cases::support::process;
use std::sync::atomic::{AtomicU32, Ordering};

/// Workers whose memory others may move.
pub(super) const SLOTS: usize = 8;

const OVER: usize = 0;
const FAILED: usize = 1;
const STARTED: usize = 2;
const ENDED: usize = 3;
const KILLED: usize = 4;
const PROCESSES: usize = 8;
const OPERATIONS: usize = PROCESSES + SLOTS;

/// The words.
#[derive(Debug)]
pub(super) struct Board(Memory);

impl Board {
    /// A blank one, to be shared with children.
    pub(super) fn new() -> Result<Self> {
        Ok(Self(Memory::shared(1)?))
    }

    fn word(&self, index: usize) -> &AtomicU32 {
        self.0.word(4 * index)
    }

    fn get(&self, index: usize) -> u32 {
        self.word(index).load(Ordering::Relaxed)
    }

    fn increment(&self, index: usize) {
        self.word(index).fetch_add(1, Ordering::Relaxed);
    }

    /// Ends the load.
    pub(super) fn end(&self) {
        self.word(OVER).store(1, Ordering::Relaxed);
    }

    /// Whether all are to come to their end.
    pub(super) fn is_over(&self) -> bool {
        self.get(OVER) != 0
    }

    /// How many processes have failed.
    pub(super) fn failed(&self) -> u32 {
        self.get(FAILED)
    }

    /// Children of workers that have started, and those that have ended as they should. Nobody else may ask for their
    /// ends: their parents may have been killed.
    pub(super) fn children(&self) -> (u32, u32) {
        (self.get(STARTED), self.get(ENDED))
    }

    /// Counts a process that is killed.
    pub(super) fn count_killed(&self) {
        self.increment(KILLED);
    }

    /// How many were killed.
    pub(super) fn killed(&self) -> u32 {
        self.get(KILLED)
    }

    /// Records the owner of a slot; 0 for none.
    pub(super) fn set_process(&self, slot: usize, pid: i32) {
        self.word(PROCESSES + slot)
            .store(pid.cast_unsigned(), Ordering::Relaxed);
    }

    /// The owner of a slot.
    pub(super) fn process(&self, slot: usize) -> i32 {
        self.get(PROCESSES + slot).cast_signed()
    }

    /// Counts an operation that was done.
    pub(super) fn count(&self, operation: Operation) {
        self.increment(OPERATIONS + operation as usize);
    }

    /// How often an operation was done.
    pub(super) fn done(&self, operation: Operation) -> u32 {
        self.get(OPERATIONS + operation as usize)
    }

    /// How many operations were done.
    pub(super) fn done_in_all(&self) -> u64 {
        Operation::all()
            .map(|operation| u64::from(self.done(operation)))
            .sum()
    }

    /// Runs what a process of the load does. If it does not come to a good end, that is on the board, whoever asks for
    /// the end of the process. The reason is said before: who sees the board ends everything.
    pub(super) fn watch(&self, body: impl FnOnce() -> Result<()>) -> Result<()> {
        let watch = Watch { board: self };
        if let Err(error) = body() {
            process::report(&error);
            bail!("the load has failed as said above");
        }
        std::mem::forget(watch);
        Ok(())
    }

    /// The same for a child of a worker.
    pub(super) fn watch_child(&self, body: impl FnOnce() -> Result<()>) -> Result<()> {
        self.increment(STARTED);
        self.watch(body)?;
        self.increment(ENDED);
        Ok(())
    }
}

/// Notes a failure at its end, which a process that succeeds does not let come.
struct Watch<'a> {
    board: &'a Board,
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.board.increment(FAILED);
    }
}

#[cfg(test)]
mod tests {
    use super::Board;
    use crate::cases::load::operation::Operation;
    use crate::cases::support::prelude::*;

    #[test]
    fn failures_are_on_the_board_and_all_words_are_apart() {
        let board = Board::new().unwrap();
        board.watch(|| Ok(())).unwrap();
        assert_eq!(board.failed(), 0);
        assert!(board.watch_child(|| bail!("it fails")).is_err());
        board.watch_child(|| Ok(())).unwrap();
        assert_eq!((board.failed(), board.children()), (1, (2, 1)));
        for slot in 0..super::SLOTS {
            board.set_process(slot, 7);
        }
        for operation in Operation::all() {
            board.count(operation);
            assert_eq!(board.done(operation), 1);
        }
        assert_eq!(board.done_in_all(), Operation::all().count() as u64);
        assert!(!board.is_over());
        board.end();
        assert!(board.is_over());
    }
}
