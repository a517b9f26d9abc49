// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a job does, as a state machine that can be interrupted before every access.

use hmm_protocol::{FaultAccess, Status};

use super::access::Access;
use crate::mmu::Miss;

/// Why a work returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It was asked to leave, and goes on later.
    Again,
    /// It cannot go on without an address. What it did so far is done, and the access that missed had no effect.
    Missed {
        /// The address and the reason.
        miss: Miss,
        /// Bytes that it is going to access from there on, as far as it knows; at least 1.
        wanted: u64,
    },
    /// It has ended.
    Ended(End),
}

/// How a work ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// `Ok`, or why it could not go on.
    pub status: Status,
    /// The virtual address that it could not go on at, or 0.
    pub address: u64,
    /// The program counter of a hart, or 0.
    pub program_counter: u64,
}

impl End {
    /// A good end.
    pub const OK: Self = Self {
        status: Status::Ok,
        address: 0,
        program_counter: 0,
    };

    /// A bad one at `address`.
    pub fn failed(status: Status, address: u64) -> Self {
        Self {
            status,
            address,
            program_counter: 0,
        }
    }
}

/// A part of a job that one executor at a time works on. A job of a fixed kind has one, a program one for each hart.
pub trait Work: Send {
    /// Goes on until it ends, misses an address, or `memory` asks it to leave.
    fn run(&mut self, memory: &dyn Access) -> Step;

    /// What was done so far: bytes, words, nodes, pages or instructions.
    fn amount(&self) -> u64;

    /// The result so far.
    fn result(&self) -> u64;

    /// The program counter of a hart; 0 of anything else.
    fn program_counter(&self) -> u64 {
        0
    }
}

/// The step of a work that missed an address on its way to `wanted` bytes.
pub(super) fn missed(miss: Miss, wanted: u64) -> Step {
    Step::Missed {
        miss,
        wanted: wanted.max(1),
    }
}

/// The step of a work whose access of `access` at `address` failed in a way that [`Access`] rules out.
pub(super) fn broken(address: u64, access: FaultAccess) -> Step {
    tracing::error!(address, ?access, "memory could not be accessed as promised");
    Step::Ended(End::failed(Status::Internal, address))
}
