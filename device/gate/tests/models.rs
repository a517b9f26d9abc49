// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! All interleavings of workers and of the threads that change the state they work on, within loom's bounds:
//! `RUSTFLAGS="--cfg loom" cargo test -p hmm-gate --release`.
//!
//! Guest memory is a cell that loom watches: two accesses at the same time, of which one writes, end the model.
#![cfg(loom)]

use hmm_gate::{Gate, QueueState, Tickets};
use loom::{
    cell::UnsafeCell,
    sync::{Arc, Mutex},
    thread,
};

/// Bounds a model: threads that are taken off their processor at most so often.
fn model(run: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(run);
}

/// A ring: whether it is enabled, what is available, what was taken.
struct Ring {
    state: Mutex<RingState>,
}

#[derive(Clone, Copy)]
struct RingState {
    enabled: bool,
    available: u16,
    taken: u16,
}

impl Ring {
    fn new(available: u16) -> Self {
        Self {
            state: Mutex::new(RingState {
                enabled: true,
                available,
                taken: 0,
            }),
        }
    }

    fn disable(&self) {
        self.state.lock().expect("not poisoned").enabled = false;
    }

    /// Takes a chain as the device does.
    fn pop(&self, queue: &QueueState) -> bool {
        let mut state = self.state.lock().expect("not poisoned");
        if queue.is_broken() || !state.enabled || state.taken == state.available {
            return false;
        }
        queue.set_executing(true);
        state.taken += 1;
        true
    }

    fn look(&self) -> RingState {
        *self.state.lock().expect("not poisoned")
    }
}

/// Guest memory, or a table of it.
struct Memory {
    cell: UnsafeCell<u32>,
}

impl Memory {
    fn new() -> Self {
        Self {
            cell: UnsafeCell::new(0),
        }
    }

    /// Writes to it. Loom fails the model if another thread may access it.
    fn touch(&self) {
        // SAFETY: exclusive access is what the model shows; loom checks it before the pointer is used.
        self.cell.with_mut(|value| unsafe { *value += 1 });
    }

    fn count(&self) -> u32 {
        // SAFETY: as above.
        self.cell.with(|value| unsafe { *value })
    }
}

// SAFETY: every access is checked by loom's cell.
unsafe impl Sync for Memory {}
// SAFETY: as above.
unsafe impl Send for Memory {}

#[test]
fn a_stopped_queue_is_left_alone() {
    model(|| {
        let gate = Arc::new(Gate::new(()));
        let shared = Arc::new((Ring::new(2), QueueState::new(), Memory::new()));
        let worker = thread::spawn({
            let (gate, shared) = (Arc::clone(&gate), Arc::clone(&shared));
            move || {
                let (ring, queue, memory) = &*shared;
                for _ in 0..2 {
                    let _inside = gate.enter();
                    if ring.pop(queue) {
                        memory.touch();
                        queue.set_executing(false);
                    }
                }
            }
        });
        let (ring, queue, memory) = &*shared;
        ring.disable();
        gate.quiesce();
        queue.restart();
        // The front end has its answer: guest memory is the guest's again.
        memory.touch();
        assert_eq!(memory.count(), u32::from(ring.look().taken) + 1);
        worker.join().expect("it ends");
        assert!(queue.take_restarted());
    });
}

#[test]
fn no_worker_uses_a_table_that_was_replaced() {
    model(|| {
        let (old, new) = (Arc::new(Memory::new()), Arc::new(Memory::new()));
        let gate = Arc::new(Gate::new(Arc::clone(&old)));
        let workers: Vec<_> = (0..2)
            .map(|_| {
                let gate = Arc::clone(&gate);
                thread::spawn(move || {
                    let table = gate.enter();
                    // Workers share it, so they only look.
                    table.count();
                })
            })
            .collect();
        gate.replace(new);
        // Unmapped, as it were.
        old.touch();
        assert_eq!(Arc::strong_count(&old), 1, "the gate still holds it");
        for worker in workers {
            worker.join().expect("it ends");
        }
    });
}

#[test]
fn a_worker_that_waits_inside_gives_way() {
    model(|| {
        let gate = Arc::new(Gate::new(()));
        let ring = Arc::new(Ring::new(1));
        let worker = thread::spawn({
            let (gate, ring) = (Arc::clone(&gate), Arc::clone(&ring));
            move || {
                loop {
                    let _inside = gate.enter();
                    if !ring.look().enabled {
                        return;
                    }
                    // A fault's delay or a fence that never comes.
                    while !gate.is_wanted() {
                        thread::yield_now();
                    }
                }
            }
        });
        ring.disable();
        gate.quiesce();
        worker.join().expect("it gives way");
    });
}

#[test]
fn two_writers_take_turns() {
    model(|| {
        let gate = Arc::new(Gate::new(()));
        let memory = Arc::new(Memory::new());
        let others: Vec<_> = (0..2)
            .map(|_| {
                let (gate, memory) = (Arc::clone(&gate), Arc::clone(&memory));
                thread::spawn(move || gate.while_quiet(|| memory.touch()))
            })
            .collect();
        drop(gate.enter());
        for other in others {
            other.join().expect("it ends");
        }
        assert_eq!(memory.count(), 2);
        assert!(!gate.is_wanted());
    });
}

/// Two queues, each with its ring.
struct Queues {
    tickets: Tickets,
    queues: [QueueState; 2],
    rings: [Ring; 2],
    memory: Memory,
}

impl Queues {
    fn new(available: [u16; 2]) -> Self {
        Self {
            tickets: Tickets::new(),
            queues: [QueueState::new(), QueueState::new()],
            rings: available.map(Ring::new),
            memory: Memory::new(),
        }
    }

    /// Waits as a fence at the head of queue `this` does.
    fn fence(&self, this: usize) {
        let other = 1 - this;
        let ticket = self.tickets.take(&self.queues[this]);
        let target = self.rings[other].look().available;
        loop {
            if self.queues[other].is_behind(ticket) {
                break;
            }
            let state = self.rings[other].state.lock().expect("not poisoned");
            let reached = self.queues[other].has_completed(target, state.taken);
            drop(state);
            if reached {
                break;
            }
            thread::yield_now();
        }
        self.queues[this].return_ticket();
    }
}

#[test]
fn a_fence_comes_after_what_was_available() {
    model(|| {
        let shared = Arc::new(Queues::new([1, 1]));
        let plain = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                assert!(shared.rings[0].pop(&shared.queues[0]));
                shared.memory.touch();
                shared.queues[0].set_executing(false);
            }
        });
        assert!(shared.rings[1].pop(&shared.queues[1]));
        shared.fence(1);
        // Were the other batch still at it, loom would say so.
        shared.memory.touch();
        assert_eq!(shared.memory.count(), 2);
        shared.queues[1].set_executing(false);
        plain.join().expect("it ends");
    });
}

#[test]
fn fences_that_meet_go_one_after_the_other() {
    model(|| {
        let shared = Arc::new(Queues::new([1, 1]));
        let run = |this: usize, shared: &Queues| {
            assert!(shared.rings[this].pop(&shared.queues[this]));
            shared.fence(this);
            shared.memory.touch();
            shared.queues[this].set_executing(false);
        };
        let other = thread::spawn({
            let shared = Arc::clone(&shared);
            move || run(0, &shared)
        });
        run(1, &shared);
        other.join().expect("neither waits for ever");
        assert_eq!(shared.memory.count(), 2);
    });
}

/// A context: the gate of its page tables, which say which page is mapped. `None`: it was destroyed.
type Tables = Gate<Option<[bool; 2]>>;

/// A stretch of a job: it accesses page `page` if that is mapped.
fn section(tables: &Tables, page: usize, memory: &[Memory; 2]) {
    let inside = tables.enter();
    if inside.as_ref().is_some_and(|mapped| mapped[page]) {
        memory[page].touch();
    }
}

#[test]
fn no_access_follows_an_invalidation() {
    model(|| {
        let tables: Arc<Tables> = Arc::new(Gate::new(Some([true, true])));
        let memory = Arc::new([Memory::new(), Memory::new()]);
        let job = thread::spawn({
            let (tables, memory) = (Arc::clone(&tables), Arc::clone(&memory));
            move || {
                // An invalidation comes before, between or after these; a job in the middle goes on with what is left.
                for _ in 0..2 {
                    section(&tables, 0, &memory);
                }
                section(&tables, 1, &memory);
            }
        });
        tables.change(|tables| {
            if let Some(mapped) = tables {
                mapped[0] = false;
            }
        });
        // The batch is answered: the page is the guest's again. Loom says if the job may still access it.
        memory[0].touch();
        job.join().expect("it ends");
        assert_eq!(memory[1].count(), 1, "what stays mapped is there");
    });
}

#[test]
fn what_was_mapped_is_there_for_the_next_section() {
    model(|| {
        let tables: Arc<Tables> = Arc::new(Gate::new(Some([false, false])));
        let memory = Arc::new([Memory::new(), Memory::new()]);
        let resumed = Arc::new(Mutex::new(false));
        let job = thread::spawn({
            let (tables, memory) = (Arc::clone(&tables), Arc::clone(&memory));
            let resumed = Arc::clone(&resumed);
            move || {
                let is_resumed = *resumed.lock().expect("not poisoned");
                section(&tables, 0, &memory);
                if is_resumed {
                    assert_eq!(memory[0].count(), 2, "it faults again for nothing");
                }
            }
        });
        // What the driver put into the page before it mapped it.
        memory[0].touch();
        tables.change(|tables| {
            if let Some(mapped) = tables {
                mapped[0] = true;
            }
        });
        *resumed.lock().expect("not poisoned") = true;
        job.join().expect("it ends");
    });
}

#[test]
fn a_long_section_gives_way_to_an_invalidation() {
    model(|| {
        let tables: Arc<Tables> = Arc::new(Gate::new(Some([true, false])));
        let memory = Arc::new([Memory::new(), Memory::new()]);
        let job = thread::spawn({
            let (tables, memory) = (Arc::clone(&tables), Arc::clone(&memory));
            move || {
                // It may come in again before the change does, as an executor may; the models take no turn for ever.
                for _ in 0..3 {
                    let inside = tables.enter();
                    if !inside.as_ref().is_some_and(|mapped| mapped[0]) {
                        return;
                    }
                    memory[0].touch();
                    // A job that would go on for ever.
                    while !tables.is_wanted() {
                        thread::yield_now();
                    }
                }
            }
        });
        tables.change(|tables| *tables = Some([false, false]));
        memory[0].touch();
        job.join().expect("it gives way");
    });
}

#[test]
fn a_destroyed_context_accesses_nothing() {
    model(|| {
        let tables: Arc<Tables> = Arc::new(Gate::new(Some([true, true])));
        let memory = Arc::new([Memory::new(), Memory::new()]);
        // Two executors, each with a job of the context, on pages of their own.
        let jobs: Vec<_> = (0..2)
            .map(|page| {
                let (tables, memory) = (Arc::clone(&tables), Arc::clone(&memory));
                thread::spawn(move || section(&tables, page, &memory))
            })
            .collect();
        tables.replace(None);
        for page in &*memory {
            page.touch();
        }
        for job in jobs {
            job.join().expect("it ends");
        }
    });
}

#[test]
fn an_executor_passes_both_gates_and_neither_change_waits_for_the_other() {
    model(|| {
        // The device's gate holds the memory table, here whether there is memory at all.
        let device = Arc::new(Gate::new(true));
        let tables: Arc<Tables> = Arc::new(Gate::new(Some([true, false])));
        let memory = Arc::new([Memory::new(), Memory::new()]);
        let executor = thread::spawn({
            let (device, tables) = (Arc::clone(&device), Arc::clone(&tables));
            let memory = Arc::clone(&memory);
            move || {
                let table = device.enter();
                if *table {
                    section(&tables, 0, &memory);
                }
            }
        });
        // The worker of the MMU queue is in the device's gate itself while it changes page tables.
        let worker = thread::spawn({
            let (device, tables) = (Arc::clone(&device), Arc::clone(&tables));
            move || {
                let _inside = device.enter();
                tables.change(|tables| *tables = Some([false, false]));
            }
        });
        // The front end takes its memory away.
        device.replace(false);
        memory[0].touch();
        executor.join().expect("it ends");
        worker.join().expect("it ends");
    });
}
