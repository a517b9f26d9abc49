// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Programs: each hart is a part of the job, and runs the code at its addresses.

mod view;

use std::{
    cell::RefCell,
    time::{Duration, Instant},
};

use hmm_hart::{Decoder, End as HartEnd, Hart, Pause, RETURN_ADDRESS, Register};
use hmm_protocol::{Job, PROGRAM_RETURN, Status};

use self::view::{Miss, Missed, View};
use super::{
    access::Access,
    work::{End, Step, Work, missed},
};

/// Instructions between two looks at what else is to be done: some 5 µs.
const CHUNK: u64 = 512;
/// How long a program runs that asks for no limit.
const DEFAULT_TIME: Duration = Duration::from_secs(60);

const _: () = assert!(RETURN_ADDRESS == PROGRAM_RETURN);

thread_local! {
    /// What a word means is the same for every hart, so the harts of an executor share what it decoded.
    static DECODER: RefCell<Decoder> = RefCell::default();
}

/// The work of one hart of a [`hmm_protocol::JobKind::Program`].
pub(super) struct Program {
    hart: Hart,
    /// Most instructions.
    limit: u64,
    accepted: Instant,
    /// Most time since then.
    time: Duration,
}

impl Program {
    /// The harts of `job`, which is valid and was accepted at `accepted`.
    pub(super) fn harts(job: &Job, accepted: Instant) -> impl Iterator<Item = Self> {
        let argument = |index| job.argument(index);
        let (entry, top, stack, harts) = (argument(0), argument(1), argument(2), argument(3));
        let limit = match argument(4) {
            0 => u64::MAX,
            limit => limit,
        };
        let time = match argument(5) {
            0 => DEFAULT_TIME,
            milliseconds => Duration::from_millis(milliseconds),
        };
        let registers = [
            (Register::A0, argument(6)),
            (Register::A1, argument(7)),
            (Register::A2, argument(8)),
            (Register::A3, argument(9)),
            (Register::A4, argument(10)),
            (Register::Gp, argument(11)),
        ];
        (0..harts).map(move |number| {
            let mut hart = Hart::new(entry);
            for (register, value) in registers {
                hart.set(register, value);
            }
            // The stacks of all harts are within the addresses of a context: that was checked with the job.
            let stack_end = top.saturating_sub(number.saturating_mul(stack));
            hart.set(Register::Sp, stack_end);
            hart.set(Register::A5, number);
            hart.set(Register::Tp, number);
            Self {
                hart,
                limit,
                accepted,
                time,
            }
        })
    }

    /// The end of this hart with `status` at `address`.
    fn end(&self, status: Status, address: u64) -> Step {
        Step::Ended(End {
            status,
            address,
            program_counter: self.hart.program_counter(),
        })
    }

    fn run_with(&mut self, memory: &dyn Access, decoder: &mut Decoder) -> Step {
        let mut view = View::new(memory, self.accepted);
        loop {
            if memory.should_leave() {
                return Step::Again;
            }
            let at = self.hart.program_counter();
            let left = self.limit.saturating_sub(self.hart.retired());
            let is_over = left == 0 || self.accepted.elapsed() >= self.time;
            if is_over && at != RETURN_ADDRESS {
                return self.end(Status::Limit, 0);
            }
            // A hart that has returned needs a step to say so.
            let budget = left.clamp(1, CHUNK);
            match self.hart.run(&mut view, decoder, budget) {
                Pause::Budget => {}
                Pause::Miss(Missed) => {
                    return match view.miss() {
                        Some(Miss { miss, wanted }) => missed(miss, wanted),
                        // A view that says so has a miss.
                        None => self.end(Status::Internal, at),
                    };
                }
                Pause::End(end) => {
                    let at = self.hart.program_counter();
                    return match end {
                        HartEnd::Exit(_) => self.end(Status::Ok, 0),
                        HartEnd::IllegalInstruction(word) => {
                            tracing::debug!(at, word, "illegal instruction");
                            self.end(Status::IllegalInstruction, at)
                        }
                        HartEnd::Breakpoint => self.end(Status::Breakpoint, at),
                        HartEnd::Misaligned(address, _) => self.end(Status::Misaligned, address),
                    };
                }
            }
        }
    }
}

impl Work for Program {
    fn run(&mut self, memory: &dyn Access) -> Step {
        DECODER.with_borrow_mut(|decoder| self.run_with(memory, decoder))
    }

    fn amount(&self) -> u64 {
        self.hart.retired()
    }

    /// `a0`: the value that the program returned, if it has.
    fn result(&self) -> u64 {
        self.hart.get(Register::A0)
    }

    fn program_counter(&self) -> u64 {
        self.hart.program_counter()
    }
}
