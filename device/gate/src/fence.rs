// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The order of fences among queues.
//!
//! A fence waits until other queues have completed what was available when the device came to it. Two fences that meet
//! would wait for each other; so each takes a ticket, and the one that came first goes first.

use crate::{
    queue::QueueState,
    sync::{AtomicU64, Ordering},
};

/// Where fences take their tickets.
#[derive(Debug)]
pub struct Tickets {
    next: AtomicU64,
}

impl Tickets {
    /// No ticket is out.
    pub fn new() -> Self {
        Self {
            next: AtomicU64::new(0),
        }
    }

    /// The next ticket, for a fence at the head of `queue`.
    pub fn take(&self, queue: &QueueState) -> u64 {
        let ticket = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        queue.ticket.store(ticket, Ordering::Release);
        ticket
    }
}

impl Default for Tickets {
    fn default() -> Self {
        Self::new()
    }
}

impl QueueState {
    /// The fence at the head of the queue waits no more.
    pub fn return_ticket(&self) {
        self.ticket.store(0, Ordering::Release);
    }

    /// Whether the fence with `ticket` need not wait for this queue: it waits itself for a later fence, or can do nothing
    /// any more.
    pub fn is_behind(&self, ticket: u64) -> bool {
        self.is_broken() || self.ticket.load(Ordering::Acquire) > ticket
    }

    /// Whether everything before position `target` of the ring is complete, if `taken` is the position of the next chain
    /// to be taken. Call it with the ring locked.
    pub fn has_completed(&self, target: u16, taken: u16) -> bool {
        // Positions wrap; a ring holds far fewer chains than half of them.
        self.complete_of(taken).wrapping_sub(target) < 1 << 15
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{QueueState, Tickets};

    #[test]
    fn positions_wrap() {
        let queue = QueueState::new();
        for (target, taken, complete) in [
            (0, 0, true),
            (1, 0, false),
            (5, 5, true),
            (5, 6, true),
            (65535, 65534, false),
            (1, 65535, false),
            (65535, 2, true),
            (0, 0, true),
        ] {
            assert_eq!(
                queue.has_completed(target, taken),
                complete,
                "{target} of {taken}"
            );
        }
        queue.set_executing(true);
        assert!(!queue.has_completed(5, 5), "the last one is still executed");
        assert!(queue.has_completed(4, 5));
        assert!(!queue.has_completed(0, 0));
    }

    #[test]
    fn the_later_fence_waits() {
        let (tickets, queues) = (Tickets::new(), [QueueState::new(), QueueState::new()]);
        let first = tickets.take(&queues[0]);
        assert!(!queues[1].is_behind(first), "it has no fence");
        let second = tickets.take(&queues[1]);
        assert!(queues[1].is_behind(first));
        assert!(!queues[0].is_behind(second));
        queues[1].return_ticket();
        assert!(!queues[1].is_behind(first));
        assert!(queues[1].set_broken() && !queues[1].set_broken());
        assert!(
            queues[1].is_behind(first),
            "a fence does not wait for a broken queue"
        );
        queues[1].restart();
        assert!(queues[1].take_restarted() && !queues[1].take_restarted());
        assert!(!queues[1].is_broken());
    }
}
