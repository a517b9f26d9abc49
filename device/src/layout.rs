// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which queue carries what, as the command line says how many there are of each kind, and which worker thread serves it.
//!
//! Control, event and urgent queue share the first thread. Each bulk queue and the MMU queue have a thread of their own.
//! The report queue and all job queues share the last thread: it only takes jobs in and puts reports out.

use hmm_protocol::{
    BULK_QUEUE_FIRST, CONTROL_QUEUE, EVENT_QUEUE, URGENT_QUEUE, job_queue_first, mmu_queue,
    report_queue,
};

/// The thread that serves control, events and urgent batches.
pub const FIRST_THREAD: usize = 0;

/// What a queue is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Requests about the device.
    Control,
    /// Buffers for events.
    Event,
    /// Copy batches that a CPU waits for.
    Urgent,
    /// Other copy batches; the number counts the bulk queues from 0.
    Bulk(u16),
    /// Batches that change page tables and answer page faults.
    Mmu,
    /// Buffers for page faults and the ends of jobs.
    Report,
    /// Jobs; the number counts the job queues from 0.
    Job(u16),
}

/// How many queues of each kind there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLayout {
    bulk: u16,
    jobs: u16,
}

impl QueueLayout {
    /// A device with `bulk` bulk queues, 1 to 16, and `jobs` job queues, 0 to 16. Without job queues there is neither an MMU
    /// queue nor a report queue.
    pub fn new(bulk: u16, jobs: u16) -> Self {
        Self { bulk, jobs }
    }

    /// Number of bulk queues.
    pub fn bulk(self) -> u16 {
        self.bulk
    }

    /// Number of job queues.
    pub fn jobs(self) -> u16 {
        self.jobs
    }

    /// Number of all queues.
    pub fn count(self) -> u16 {
        match self.jobs {
            0 => mmu_queue(self.bulk),
            jobs => job_queue_first(self.bulk) + jobs,
        }
    }

    /// What queue `index` is for, if there is such a queue.
    pub fn role(self, index: u16) -> Option<Role> {
        let mmu = mmu_queue(self.bulk);
        match index {
            _ if index >= self.count() => None,
            CONTROL_QUEUE => Some(Role::Control),
            EVENT_QUEUE => Some(Role::Event),
            URGENT_QUEUE => Some(Role::Urgent),
            _ if index < mmu => Some(Role::Bulk(index - BULK_QUEUE_FIRST)),
            _ if index == mmu => Some(Role::Mmu),
            _ if index == report_queue(self.bulk) => Some(Role::Report),
            _ => Some(Role::Job(index - job_queue_first(self.bulk))),
        }
    }

    /// The report queue, if there is one.
    pub fn report(self) -> Option<u16> {
        (self.jobs > 0).then(|| report_queue(self.bulk))
    }

    /// The queues of copy batches, which fences are about.
    pub fn copy_queues(self) -> impl Iterator<Item = u16> {
        URGENT_QUEUE..mmu_queue(self.bulk)
    }

    /// The name of queue `index` in logs, statistics and traces, with a number where there are several.
    pub fn name(self, index: u16) -> String {
        match self.role(index) {
            Some(Role::Control) => "control".to_owned(),
            Some(Role::Event) => "event".to_owned(),
            Some(Role::Urgent) => "urgent".to_owned(),
            Some(Role::Bulk(number)) => format!("bulk{number}"),
            Some(Role::Mmu) => "mmu".to_owned(),
            Some(Role::Report) => "report".to_owned(),
            Some(Role::Job(number)) => format!("job{number}"),
            None => format!("queue{index}"),
        }
    }

    /// Number of worker threads.
    pub fn threads(self) -> usize {
        self.thread_of(self.count() - 1) + 1
    }

    /// The thread that serves queue `index`.
    pub fn thread_of(self, index: u16) -> usize {
        let shared = report_queue(self.bulk);
        usize::from(index.min(shared).saturating_sub(URGENT_QUEUE))
    }

    /// The queues of a thread by their index, in the order in which it serves them.
    pub fn queues_of(self, thread: usize) -> Vec<u16> {
        match thread {
            // Urgent first.
            FIRST_THREAD => vec![URGENT_QUEUE, CONTROL_QUEUE, EVENT_QUEUE],
            _ => (BULK_QUEUE_FIRST..self.count())
                .filter(|queue| self.thread_of(*queue) == thread)
                .collect(),
        }
    }

    /// The lowest queue of a thread. Those of a thread follow each other.
    pub fn first_of(self, thread: usize) -> u16 {
        let queues = self.queues_of(thread);
        queues.into_iter().min().unwrap_or(self.count())
    }
}

#[cfg(test)]
mod tests {
    use super::{FIRST_THREAD, QueueLayout, Role};

    #[test]
    fn every_queue_has_one_thread() {
        for layout in [
            QueueLayout::new(1, 0),
            QueueLayout::new(16, 0),
            QueueLayout::new(1, 2),
            QueueLayout::new(16, 16),
        ] {
            let mut seen = Vec::new();
            for thread in 0..layout.threads() {
                let queues = layout.queues_of(thread);
                assert_eq!(queues.iter().min(), Some(&layout.first_of(thread)));
                for queue in queues {
                    assert_eq!(layout.thread_of(queue), thread);
                    assert!(layout.role(queue).is_some());
                    seen.push(queue);
                }
            }
            seen.sort_unstable();
            assert_eq!(seen, (0..layout.count()).collect::<Vec<u16>>());
            assert_eq!(layout.role(layout.count()), None);
        }
    }

    #[test]
    fn jobs_come_behind_everything_else() {
        let layout = QueueLayout::new(2, 3);
        let names: Vec<String> = (0..layout.count())
            .map(|index| layout.name(index))
            .collect();
        let expected = [
            "control", "event", "urgent", "bulk0", "bulk1", "mmu", "report", "job0", "job1", "job2",
        ];
        assert_eq!(names, expected);
        assert_eq!(layout.role(5), Some(Role::Mmu));
        assert_eq!(layout.thread_of(4), 2);
        assert_eq!(layout.thread_of(5), 3);
        assert_eq!(layout.thread_of(6), 4);
        assert_eq!(layout.thread_of(9), 4);
        assert_eq!(layout.thread_of(0), FIRST_THREAD);
        assert_eq!(QueueLayout::new(2, 0).count(), 5);
        assert_eq!(layout.copy_queues().collect::<Vec<_>>(), [2, 3, 4]);
    }
}
