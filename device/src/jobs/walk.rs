// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Follows a linked list by its raw pointers.

use std::sync::atomic::{AtomicU64, Ordering};

use hmm_protocol::{FaultAccess, Status, VIRTUAL_ADDRESS_END};
use vm_memory::{VolatileMemory, VolatileSlice};

use super::{
    access::Access,
    work::{End, Step, Work, missed},
};
use crate::mmu::Miss;

/// Bytes of a pointer and of a value.
const WORD: u64 = 8;
/// Nodes between two looks at what else is to be done: one that misses the caches takes some 100 ns.
const NODES: u32 = 64;

/// The work of [`hmm_protocol::JobKind::Walk`].
pub(super) struct Walk {
    node: u64,
    next_at: u64,
    left: u64,
    value_at: u64,
    add: Option<u64>,
    done: u64,
    sum: u64,
}

/// Why a node could not be visited.
enum Stop {
    Miss(Miss),
    End(End),
}

impl From<Miss> for Stop {
    fn from(miss: Miss) -> Self {
        Self::Miss(miss)
    }
}

impl Walk {
    /// `limit` nodes at most; with `add` it is added to each value. Both offsets are below 2^32.
    pub(super) fn new(
        first: u64,
        next_at: u64,
        limit: u64,
        value_at: u64,
        add: Option<u64>,
    ) -> Self {
        Self {
            node: first,
            next_at,
            left: limit,
            value_at,
            add,
            done: 0,
            sum: 0,
        }
    }

    /// Visits the node. Nothing is written unless all of it can be accessed.
    fn visit(&mut self, memory: &dyn Access) -> Result<(), Stop> {
        let access = match self.add {
            Some(_) => FaultAccess::WRITE,
            None => FaultAccess::READ,
        };
        let address = |offset: u64| {
            (self.node.checked_add(offset))
                .filter(|at| *at <= VIRTUAL_ADDRESS_END - WORD)
                .ok_or_else(|| Stop::End(End::failed(Status::BadAddress, self.node)))
        };
        let next = Word::at(memory, address(self.next_at)?, FaultAccess::READ)?;
        let value = Word::at(memory, address(self.value_at)?, access)?;
        let next = next.load();
        let before = match self.add {
            Some(add) => value.add(add),
            None => value.load(),
        };
        self.sum = self.sum.wrapping_add(before);
        self.node = next;
        self.done = self.done.saturating_add(1);
        self.left = self.left.saturating_sub(1);
        Ok(())
    }
}

impl Work for Walk {
    fn run(&mut self, memory: &dyn Access) -> Step {
        loop {
            if memory.should_leave() {
                return Step::Again;
            }
            for _ in 0..NODES {
                if self.node == 0 {
                    return Step::Ended(End::OK);
                }
                if self.left == 0 {
                    return Step::Ended(End::failed(Status::Limit, self.node));
                }
                match self.visit(memory) {
                    Ok(()) => {}
                    Err(Stop::Miss(miss)) => return missed(miss, WORD),
                    Err(Stop::End(end)) => return Step::Ended(end),
                }
            }
        }
    }

    fn amount(&self) -> u64 {
        self.done
    }

    fn result(&self) -> u64 {
        self.sum
    }
}

/// Eight bytes, which may lie in two pages that are not side by side in this process.
struct Word<'a> {
    low: VolatileSlice<'a>,
    high: Option<VolatileSlice<'a>>,
}

impl<'a> Word<'a> {
    fn at(memory: &'a dyn Access, address: u64, access: FaultAccess) -> Result<Self, Miss> {
        let low = memory.span(address, WORD, access)?;
        let missing = WORD.saturating_sub(low.len() as u64);
        if missing == 0 {
            return Ok(Self { low, high: None });
        }
        let high = memory.span(address.saturating_add(low.len() as u64), missing, access)?;
        Ok(Self {
            low,
            high: Some(high),
        })
    }

    /// The word as one number, if it is aligned and so never seen halfway changed.
    fn whole(&self) -> Option<&AtomicU64> {
        match self.high {
            Some(_) => None,
            None => self.low.get_atomic_ref(0).ok(),
        }
    }

    fn load(&self) -> u64 {
        if let Some(word) = self.whole() {
            return u64::from_le(word.load(Ordering::Relaxed));
        }
        let mut bytes = [0; WORD as usize];
        let at = self.low.copy_to(&mut bytes);
        if let Some(high) = &self.high {
            high.copy_to(&mut bytes[at..]);
        }
        u64::from_le_bytes(bytes)
    }

    /// Adds to the word and returns what it was.
    fn add(&self, add: u64) -> u64 {
        if let Some(word) = self.whole() {
            return u64::from_le(word.fetch_add(add.to_le(), Ordering::Relaxed));
        }
        let before = self.load();
        let bytes = before.wrapping_add(add).to_le_bytes();
        self.low.copy_from(&bytes);
        if let Some(high) = &self.high {
            high.copy_from(&bytes[self.low.len().min(bytes.len())..]);
        }
        before
    }
}
