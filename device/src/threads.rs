// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The worker threads: which queues each serves, and for how long it does one thing.

use std::time::Duration;

use hmm_protocol::{BULK_QUEUE_FIRST, CONTROL_QUEUE, EVENT_QUEUE, URGENT_QUEUE};

/// How long workers do something before they do something else.
#[derive(Clone, Copy, Debug)]
pub struct WorkerTimes {
    /// The longest look for a batch before a worker sleeps.
    pub poll: Duration,
    /// The longest copying before completions are published.
    pub set: Duration,
}

/// The thread that serves control, events and urgent batches.
pub const FIRST_THREAD: usize = 0;

/// The queues of a thread, by their index.
pub fn queues_of_thread(thread: usize) -> Vec<u16> {
    if thread == FIRST_THREAD {
        // Urgent first: a worker serves its queues in this order.
        vec![URGENT_QUEUE, CONTROL_QUEUE, EVENT_QUEUE]
    } else {
        vec![BULK_QUEUE_FIRST + (thread - 1) as u16]
    }
}

/// The thread of a queue.
pub fn thread_of_queue(queue: u16) -> usize {
    usize::from(queue.saturating_sub(URGENT_QUEUE))
}

#[cfg(test)]
mod tests {
    use super::{queues_of_thread, thread_of_queue};

    #[test]
    fn every_queue_has_one_thread() {
        let mut seen = Vec::new();
        for thread in 0..5 {
            for queue in queues_of_thread(thread) {
                assert_eq!(thread_of_queue(queue), thread);
                seen.push(queue);
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..7).collect::<Vec<u16>>());
    }
}
