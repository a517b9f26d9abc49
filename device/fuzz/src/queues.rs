// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The three queues that one worker serves, in any order: what is given back on a ring was made available there, in the
//! same order, whatever becomes of the other two.

use std::sync::{Arc, Mutex, OnceLock};

use arbitrary::{Arbitrary, Unstructured};
use hmm_protocol::{CONTROL_QUEUE, EVENT_QUEUE, Event, EventKind, Features, URGENT_QUEUE};
use vhost_user_backend::VringT;
use vhost_user_hmm::{device::Device, guest_memory::GuestMemory, queue::Worker, ring::Ring};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use zerocopy::byteorder::little_endian::{U16, U32, U64};

use crate::fixture::{self, RING_SIZE as SIZE};

const QUEUES: [u16; 3] = [CONTROL_QUEUE, EVENT_QUEUE, URGENT_QUEUE];
/// Each queue has so much of the guest's memory. A chain takes two descriptors of the ring.
const AREA: u64 = 0x4000;
const AVAIL: u64 = 0x1000;
const USED: u64 = 0x2000;
const DATA: u64 = 0x3000;
/// Bytes of each buffer at most.
const BUFFER: u64 = 128;

#[derive(Debug, Arbitrary)]
enum Step {
    /// A chain with a request and room for an answer.
    Chain {
        queue: u8,
        request: Vec<u8>,
        room: u8,
    },
    /// A head that does not exist.
    WildHead { queue: u8, head: u16 },
    /// An available index that runs ahead.
    WildIndex { queue: u8, by: u8 },
    /// Events.
    Raise(u8),
    /// The worker serves a queue.
    Serve(u8),
    /// A queue is stopped and set up again.
    Restart(u8),
}

/// A queue as its driver keeps it.
struct Lane {
    queue: u16,
    ring: Ring,
    /// Heads that were made available, oldest first, and whether nonsense followed them.
    made: Vec<(u16, u8)>,
    is_wild: bool,
    next_avail: u16,
    checked: usize,
}

struct Rig<'a> {
    device: &'a Device,
    memory: &'a GuestMemoryMmap,
    lanes: Vec<Lane>,
    worker: Worker,
}

fn parts() -> &'static Mutex<(Device, Arc<GuestMemoryMmap>)> {
    static PARTS: OnceLock<Mutex<(Device, Arc<GuestMemoryMmap>)>> = OnceLock::new();
    PARTS.get_or_init(|| {
        let device = fixture::device(SIZE);
        let memory = fixture::guest_memory(&[(0, AREA * QUEUES.len() as u64)]);
        device.replace_memory(GuestMemory::new(Arc::clone(&memory)));
        Mutex::new((device, memory))
    })
}

/// The bytes describe steps.
pub fn run(data: &[u8]) {
    let Ok(steps) = Vec::<Step>::arbitrary_take_rest(Unstructured::new(data)) else {
        return;
    };
    let parts = parts().lock().expect("no panic before");
    let (device, memory) = &*parts;
    device.driver_started(Features::ALL);
    let mut rig = Rig {
        device,
        memory,
        lanes: Vec::new(),
        worker: Worker::new(fixture::WORKER_TIMES),
    };
    for queue in QUEUES {
        let lane = rig.set_up(queue);
        rig.lanes.push(lane);
    }
    for step in steps.iter().take(128) {
        rig.step(step);
    }
    for lane in 0..QUEUES.len() {
        rig.serve(lane);
    }
}

impl Rig<'_> {
    fn step(&mut self, step: &Step) {
        let lane = |queue: &u8| usize::from(*queue) % QUEUES.len();
        match step {
            Step::Chain {
                queue,
                request,
                room,
            } => self.chain(lane(queue), request, *room),
            Step::WildHead { queue, head } => {
                let lane = lane(queue);
                if !self.lanes[lane].is_wild {
                    self.make_available(lane, (*head).max(SIZE));
                    self.lanes[lane].is_wild = true;
                }
            }
            Step::WildIndex { queue, by } => {
                let lane = lane(queue);
                let wild = self.lanes[lane]
                    .next_avail
                    .wrapping_add(SIZE + 1 + u16::from(*by));
                // Further ahead than the ring is long: nothing of it is served any more, so nothing may wait.
                self.serve(lane);
                self.lanes[lane].is_wild = true;
                self.poke(lane, AVAIL + 2, &wild.to_le_bytes());
            }
            Step::Raise(count) => {
                for value in 0..u64::from(count % 8) {
                    self.device.raise(Event {
                        kind: EventKind::Poison as u8,
                        flags: 0,
                        queue: U16::new(0),
                        reserved: U32::new(0),
                        value: U64::new(value),
                        generation: U64::new(1),
                        reserved2: U64::new(0),
                    });
                }
            }
            Step::Serve(queue) => self.serve(lane(queue)),
            Step::Restart(queue) => {
                let lane = lane(queue);
                let index = self.lanes[lane].queue;
                self.lanes[lane].ring.set_queue_ready(false);
                self.device.queue_stopped(index);
                self.lanes[lane] = self.set_up(index);
            }
        }
    }

    /// An empty queue.
    fn set_up(&self, queue: u16) -> Lane {
        let base = u64::from(queue) * AREA;
        self.memory
            .write_slice(&vec![0; AREA as usize], GuestAddress(base))
            .expect("memory");
        Lane {
            queue,
            ring: fixture::ring(SIZE, base, base + AVAIL, base + USED),
            made: Vec::new(),
            is_wild: false,
            next_avail: 0,
            checked: 0,
        }
    }

    fn poke(&self, lane: usize, at: u64, bytes: &[u8]) {
        let base = u64::from(self.lanes[lane].queue) * AREA;
        self.memory
            .write_slice(bytes, GuestAddress(base + at))
            .expect("memory");
    }

    fn peek<const N: usize>(&self, lane: usize, at: u64) -> [u8; N] {
        let base = u64::from(self.lanes[lane].queue) * AREA;
        let mut bytes = [0; N];
        self.memory
            .read_slice(&mut bytes, GuestAddress(base + at))
            .expect("memory");
        bytes
    }

    fn make_available(&mut self, lane: usize, head: u16) {
        let next = self.lanes[lane].next_avail;
        self.poke(
            lane,
            AVAIL + 4 + 2 * u64::from(next % SIZE),
            &head.to_le_bytes(),
        );
        self.lanes[lane].next_avail = next.wrapping_add(1);
        self.poke(lane, AVAIL + 2, &next.wrapping_add(1).to_le_bytes());
    }

    fn chain(&mut self, lane: usize, request: &[u8], room: u8) {
        let in_flight = self.lanes[lane].made.len() - self.lanes[lane].checked;
        if self.lanes[lane].is_wild || in_flight >= usize::from(SIZE / 2) {
            return;
        }
        let head = 2 * (self.lanes[lane].made.len() as u16 % (SIZE / 2));
        let at = DATA + u64::from(head) * BUFFER;
        let len = request.len().min(BUFFER as usize);
        let room = room % (BUFFER as u8);
        self.poke(lane, at, &request[..len]);
        let base = u64::from(self.lanes[lane].queue) * AREA;
        for (slot, address, len, flags) in [
            (head, at, len as u32, 1u16),
            (head + 1, at + BUFFER, u32::from(room), 2),
        ] {
            let mut descriptor = (base + address).to_le_bytes().to_vec();
            descriptor.extend(len.to_le_bytes());
            descriptor.extend(flags.to_le_bytes());
            descriptor.extend((head + 1).to_le_bytes());
            self.poke(lane, 16 * u64::from(slot), &descriptor);
        }
        self.lanes[lane].made.push((head, room));
        self.make_available(lane, head);
    }

    fn serve(&mut self, lane: usize) {
        let ring = self.lanes[lane].ring.clone();
        match self.lanes[lane].queue {
            CONTROL_QUEUE => self.device.serve_control(&ring, &mut self.worker),
            EVENT_QUEUE => self.device.serve_events(&ring, &mut self.worker),
            queue => self.device.serve_batches(queue, &ring, &mut self.worker),
        }
        for lane in 0..QUEUES.len() {
            self.check(lane);
        }
        let served = &self.lanes[lane];
        if served.queue != EVENT_QUEUE {
            assert_eq!(served.checked, served.made.len(), "a chain was left");
            assert_eq!(self.device.is_broken(served.queue), served.is_wild);
        }
    }

    /// Compares what was given back since the last time with what was made available.
    fn check(&mut self, lane: usize) {
        let used = u16::from_le_bytes(self.peek(lane, USED + 2));
        let Lane { queue, checked, .. } = self.lanes[lane];
        let given_back = usize::from(used.wrapping_sub(checked as u16));
        assert!(
            checked + given_back <= self.lanes[lane].made.len(),
            "queue {queue} got {given_back} back, more than it had"
        );
        for index in checked..checked + given_back {
            let slot = index as u64 % u64::from(SIZE);
            let element = u64::from_le_bytes(self.peek(lane, USED + 4 + 8 * slot));
            let (head, room) = self.lanes[lane].made[index];
            assert_eq!(element as u32, u32::from(head), "queue {queue}");
            // Requests, replies, events and records without an array have this length.
            let len = if room < 32 { 0 } else { 32 };
            let found = (element >> 32) as u32;
            let with_array = queue == URGENT_QUEUE && found > len && found <= u32::from(room);
            assert!(found == len || with_array, "queue {queue}: {found} bytes");
        }
        self.lanes[lane].checked += given_back;
    }
}
