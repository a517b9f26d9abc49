// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Batch queues: urgent, bulk and MMU.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use hmm_gate::Gate;
use hmm_protocol::{BatchFlags, COMPLETION_BYTES, JobKind, MapOp, Op, Status, URGENT_QUEUE};
use vhost_user_backend::VringT;
use zerocopy::IntoBytes;

use super::{
    chain::Chain,
    pop::Popped,
    worker::{Held, Worker},
};
use crate::{
    device::Device,
    engine::{Engine, Job, MAX_REQUEST_BYTES, Pace, Report},
    guest_memory::{GuestMemory, OutOfTable},
    inject::{Delivery, Step},
    layout::Role,
    ring::Ring,
    trace::Span,
};

/// A set of completions is published when it has so many, or has taken as much copying as `WorkerTimes` says.
const SET_CHAINS: usize = 64;
/// A queue that shares its worker lets the others have a turn after so many sets.
const SETS_OF_A_TURN: usize = 256;
/// How long a bulk batch steps aside for an urgent one, at most, between two slices.
const STEP_ASIDE: Duration = Duration::from_micros(200);

/// Why a set ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SetEnd {
    Empty,
    Due,
    Closed,
}

struct WorkerPace<'a> {
    device: &'a Device,
    gate: &'a Gate<GuestMemory>,
    urgent: bool,
}

impl Pace for WorkerPace<'_> {
    fn between_slices(&self) {
        if self.urgent || !self.device.urgent_is_busy() {
            return;
        }
        let until = Instant::now() + STEP_ASIDE;
        while self.device.urgent_is_busy() && Instant::now() < until {
            std::thread::yield_now();
        }
    }

    fn is_wanted(&self) -> bool {
        self.gate.is_wanted()
    }
}

impl Device {
    /// Serves batch queue `index` until it is empty.
    pub fn serve_batches(&self, index: u16, ring: &Ring, worker: &mut Worker) {
        let mut worked = false;
        for _ in 0..SETS_OF_A_TURN {
            let guest = self.gate().enter();
            if !self.is_served(index) {
                return;
            }
            if !self.begin(index, ring, &guest) {
                return;
            }
            let (end, executed) = self.serve_set(index, ring, &guest, worker);
            if executed && !worked {
                worked = true;
                worker.poll.busy(Instant::now());
            }
            match end {
                SetEnd::Due => {}
                SetEnd::Closed => return,
                SetEnd::Empty => {
                    drop(guest);
                    if worked && self.poll(index, ring, &mut worker.poll) {
                        continue;
                    }
                    let guest = self.gate().enter();
                    if !self.enable_kicks(index, ring, &guest) {
                        return;
                    }
                }
            }
        }
        // A ring that is never empty: the other queues come first, and then this one again.
        self.wake(self.layout().thread_of(index));
    }

    /// Executes what is available, up to a set, and publishes it. Returns why it ended and whether there was anything.
    fn serve_set(
        &self,
        index: u16,
        ring: &Ring,
        guest: &GuestMemory,
        worker: &mut Worker,
    ) -> (SetEnd, bool) {
        let started = Instant::now();
        let (mut die, mut executed) = (None, false);
        let end = loop {
            match self.pop(index, ring, guest, worker) {
                Popped::Empty => break SetEnd::Empty,
                Popped::Closed => break SetEnd::Closed,
                Popped::Chain => {}
            }
            if !self.serve_chain(index, ring, guest, worker, &mut die) {
                self.unpop(index, ring);
                break SetEnd::Due;
            }
            self.queue(index).set_executing(false);
            // Not before: a chain that is put back is popped again.
            self.note_start(index, worker);
            executed = true;
            let due = index == URGENT_QUEUE
                || die.is_some()
                || worker.used.len() >= SET_CHAINS
                || started.elapsed() >= worker.longest_set
                || self.gate().is_wanted();
            if due {
                break SetEnd::Due;
            }
        };
        self.publish_or_die(index, ring, guest, worker, die);
        (end, executed)
    }

    fn publish_or_die(
        &self,
        index: u16,
        ring: &Ring,
        guest: &GuestMemory,
        worker: &mut Worker,
        die: Option<Step>,
    ) {
        if die == Some(Step::AfterRecord) {
            Step::AfterRecord.die();
        }
        if die == Some(Step::AfterUsed) {
            // The signal belongs to publishing, so the worker publishes on its own and dies before it would signal.
            let _ = worker
                .used
                .publish(ring.get_mut().get_queue_mut(), guest.mappings());
            Step::AfterUsed.die();
        }
        self.publish(index, ring, guest, &mut worker.used);
    }

    /// Executes the chain that was popped. Returns `false` if it was not executed because this worker is wanted.
    fn serve_chain(
        &self,
        index: u16,
        ring: &Ring,
        guest: &GuestMemory,
        worker: &mut Worker,
        die: &mut Option<Step>,
    ) -> bool {
        let stats = self.stats().queue(index);
        let chain = &worker.chain;
        let read = chain.read(guest, &mut worker.request, MAX_REQUEST_BYTES);
        if read.is_err() {
            // What was read of it is no request.
            worker.request.clear();
        }
        if chain.writable_bytes() < COMPLETION_BYTES as u64 {
            stats.without_record.add(1);
            worker.used.push(chain.head, 0);
            return true;
        }
        let refused = if chain.is_malformed() || chain.readable_bytes() > MAX_REQUEST_BYTES as u64 {
            stats.malformed_chains.add(1);
            Some(Status::BadLength)
        } else if read.is_err() {
            stats.malformed_chains.add(1);
            Some(Status::BadGuestAddress)
        } else {
            None
        };
        let Some(role) = self.layout().role(index) else {
            return false;
        };
        let copies = matches!(role, Role::Urgent | Role::Bulk(_));
        if refused.is_none() && copies && has_fence(&worker.request) {
            self.publish(index, ring, guest, &mut worker.used);
            if !self.wait_for_fence(index, guest) {
                return false;
            }
        }
        let urgent = role == Role::Urgent;
        let pace = WorkerPace {
            device: self,
            gate: self.gate(),
            urgent,
        };
        if urgent {
            self.urgent().fetch_add(1, Ordering::Relaxed);
        }
        let started = Instant::now();
        let report = match refused {
            Some(status) => Report::refusal(status, Engine::cookie_of(&worker.request)),
            None => {
                let job = Job {
                    role,
                    guest,
                    pace: &pace,
                    status_room: usize::try_from(chain.writable_bytes())
                        .unwrap_or(usize::MAX)
                        .saturating_sub(COMPLETION_BYTES),
                };
                let (request, workspace) = (&worker.request, &mut worker.workspace);
                match role {
                    Role::Mmu => match self.engine().execute_map(request, &job, workspace) {
                        Some(report) => report,
                        None => return false,
                    },
                    Role::Urgent | Role::Bulk(_) => self.engine().execute(request, &job, workspace),
                    Role::Job(_) => self.engine().submit(request, &job, workspace),
                    Role::Control | Role::Event | Role::Report => {
                        Report::refusal(Status::Busy, Engine::cookie_of(request))
                    }
                }
            }
        };
        if urgent {
            self.urgent().fetch_sub(1, Ordering::Relaxed);
        }
        let time = started.elapsed();
        stats.record_batch(&report, &worker.workspace, time);
        if self.trace().is_on() {
            self.trace().record(&Span {
                queue: index,
                started,
                time,
                op: match role {
                    Role::Mmu => Engine::first_map_op(&worker.request).map(MapOp::name),
                    Role::Job(_) => Engine::job_kind(&worker.request).map(JobKind::name),
                    _ => Engine::first_op(&worker.request).map(Op::name),
                },
                report: &report,
            });
        }
        *die = report.delivery.die;
        self.deliver(index, guest, worker, &report);
        true
    }

    /// Writes the record, and notes the used element.
    fn deliver(&self, index: u16, guest: &GuestMemory, worker: &mut Worker, report: &Report) {
        let statuses: &[u8] = if report.with_statuses {
            worker.workspace.statuses()
        } else {
            &[]
        };
        let len = (COMPLETION_BYTES + statuses.len()) as u32;
        let mut record = [0; COMPLETION_BYTES];
        record.copy_from_slice(report.completion.as_bytes());
        let Delivery {
            drop,
            duplicate,
            reorder,
            used_len,
            die: _,
        } = report.delivery;
        if drop {
            return;
        }
        if reorder && worker.held.is_none() {
            // Its chain must stay as it is until then; the worker goes on with a new one.
            let held = Held {
                chain: std::mem::take(&mut worker.chain),
                record,
                statuses: statuses.to_vec(),
                len: used_len.unwrap_or(len),
            };
            worker.held = Some((index, held));
            return;
        }
        let head = worker.chain.head;
        match write_record(guest, &worker.chain, &record, statuses) {
            Ok(()) => worker.used.push(head, used_len.unwrap_or(len)),
            Err(OutOfTable) => {
                self.stats().queue(index).without_record.add(1);
                worker.used.push(head, 0);
            }
        }
        if duplicate {
            worker.used.push(head, used_len.unwrap_or(len));
        }
        if let Some((_, held)) = worker.held.take_if(|(queue, _)| *queue == index) {
            let len = match write_record(guest, &held.chain, &held.record, &held.statuses) {
                Ok(()) => held.len,
                Err(OutOfTable) => 0,
            };
            worker.used.push(held.chain.head, len);
        }
    }
}

/// Writes statuses and record, and the record's status byte after everything else.
fn write_record(
    guest: &GuestMemory,
    chain: &Chain,
    record: &[u8; COMPLETION_BYTES],
    statuses: &[u8],
) -> Result<(), OutOfTable> {
    chain.write(guest, COMPLETION_BYTES, statuses)?;
    chain.write(guest, 1, &record[1..])?;
    chain.write_first(guest, record[0])
}

/// Whether a request starts with a header that has the flag; whether the rest of it is right is the engine's business.
fn has_fence(request: &[u8]) -> bool {
    request
        .get(1)
        .is_some_and(|flags| BatchFlags(*flags).contains(BatchFlags::FENCE))
}
