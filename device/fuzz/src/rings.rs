// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Rings and chains of any shape, served by the device and by the model.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, OnceLock},
};

use arbitrary::{Arbitrary, Unstructured};
use hmm_protocol::{ControlKind, ControlRequest, SessionRequest, URGENT_QUEUE};
use vhost_user_backend::VringT;
use vhost_user_hmm::{device::Device, guest_memory::GuestMemory, queue::Worker, ring::Ring};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use zerocopy::IntoBytes;

use crate::{
    fixture::{self, DEVICE_BYTES, RING_SIZE as SIZE},
    model::Model,
    steps::{Request, Step},
};

const GUEST_BYTES: usize = 0x60000;
/// Two regions that touch, a gap, and a third.
const TABLE: [(u64, u64); 3] = [(0, 0x20000), (0x20000, 0x10000), (0x50000, 0x10000)];
/// What a ring could be long at most, which is more than the rings of the target are.
const QUEUE_SIZE_MAX: u16 = 256;
const DESCRIPTORS: u64 = 0x1000;
const AVAIL: u64 = 0x2000;
const USED: u64 = 0x3000;

fn device_memory(device: &Device) -> *mut u8 {
    device
        .engine()
        .memory()
        .at(0, DEVICE_BYTES as u64)
        .expect("all of it")
}

struct Rig<'a> {
    device: &'a Device,
    ring: Ring,
    worker: Worker,
    mappings: Arc<GuestMemoryMmap>,
    model: Model<'a>,
    next_avail: u16,
    next_slot: u16,
    scratch: u64,
}

/// What is made once, because it is costly: memory on both sides, and a device with an open session.
struct Parts {
    device: Device,
    mappings: Arc<GuestMemoryMmap>,
    generation: u64,
    model_device: Vec<u8>,
}

fn parts() -> &'static Mutex<Parts> {
    static PARTS: OnceLock<Mutex<Parts>> = OnceLock::new();
    PARTS.get_or_init(|| {
        let device = fixture::device(QUEUE_SIZE_MAX);
        let mappings = fixture::guest_memory(&TABLE);
        device.replace_memory(GuestMemory::new(Arc::clone(&mappings)));
        let open = SessionRequest {
            request: ControlRequest::new(ControlKind::SessionOpen, 0, 0, 0, 0),
            key: [1; 16],
        };
        let generation = device.engine().control(open.as_bytes()).generation.get();
        Mutex::new(Parts {
            device,
            mappings,
            generation,
            model_device: vec![0; DEVICE_BYTES],
        })
    })
}

/// How many batches had which status so far, by its name.
pub fn results() -> BTreeMap<&'static str, u64> {
    let parts = parts().lock().expect("no panic before");
    let mut snapshot = parts.device.snapshot();
    snapshot
        .queues
        .remove("urgent")
        .map(|queue| queue.results)
        .unwrap_or_default()
}

/// The bytes describe steps.
pub fn run(data: &[u8]) {
    let Ok(steps) = Vec::<Step>::arbitrary_take_rest(Unstructured::new(data)) else {
        return;
    };
    let mut parts = parts().lock().expect("no panic before");
    let Parts {
        device,
        mappings,
        generation,
        model_device,
    } = &mut *parts;
    let device = &*device;
    for (start, len) in TABLE {
        mappings
            .write_slice(&vec![0; len as usize], GuestAddress(start))
            .expect("memory");
    }
    model_device.fill(0);
    // SAFETY: `device_memory` is the start of DEVICE_BYTES mapped bytes, and no other thread uses them now.
    unsafe { std::ptr::write_bytes(device_memory(device), 0, DEVICE_BYTES) };
    let ring = fixture::ring(QUEUE_SIZE_MAX, DESCRIPTORS, AVAIL, USED);
    device.attach(Vec::new());
    let mut rig = Rig {
        worker: Worker::new(fixture::WORKER_TIMES),
        ring,
        model: Model {
            guest: vec![0; GUEST_BYTES],
            table: TABLE.to_vec(),
            device: model_device,
            limits: *device.engine().limits(),
            generation: *generation,
            size: SIZE,
            descriptors: DESCRIPTORS,
            avail: AVAIL,
            used: USED,
        },
        next_avail: 0,
        next_slot: 0,
        scratch: 0x10000,
        device,
        mappings: Arc::clone(mappings),
    };
    for step in steps.iter().take(64) {
        if !rig.step(step) {
            return;
        }
    }
    rig.serve();
}

impl Rig<'_> {
    /// Executes a step. Returns whether there is a point in going on.
    fn step(&mut self, step: &Step) -> bool {
        match step {
            Step::Chain {
                request,
                room,
                pieces,
                indirect,
            } => self.chain(request, *room, usize::from(pieces % 4) + 1, *indirect),
            Step::Raw { slot, descriptors } => {
                for (raw, at) in descriptors
                    .iter()
                    .take(usize::from(SIZE))
                    .zip(u16::from(*slot)..)
                {
                    let descriptor = descriptor(
                        raw.address.address(),
                        raw.long.unwrap_or(u32::from(raw.len)),
                        u16::from(raw.flags & 7),
                        u16::from(raw.next % 20),
                    );
                    self.poke(DESCRIPTORS + 16 * u64::from(at % SIZE), &descriptor);
                }
            }
            Step::Head(head) => self.make_available(*head % 20),
            Step::Index(by) => {
                self.next_avail = self.next_avail.wrapping_add_signed(i16::from(*by));
                self.poke(AVAIL + 2, &self.next_avail.to_le_bytes());
            }
            Step::Serve => return self.serve(),
        }
        true
    }

    /// Writes to the guest's memory on both sides.
    fn poke(&mut self, address: u64, bytes: &[u8]) {
        self.mappings
            .write_slice(bytes, GuestAddress(address))
            .expect("within the table");
        let at = address as usize;
        self.model.guest[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn make_available(&mut self, head: u16) {
        let slot = u64::from(self.next_avail % SIZE);
        self.poke(AVAIL + 4 + 2 * slot, &head.to_le_bytes());
        self.next_avail = self.next_avail.wrapping_add(1);
        self.poke(AVAIL + 2, &self.next_avail.to_le_bytes());
    }

    /// Room for `bytes` bytes that no chain uses now.
    fn allocate(&mut self, bytes: u64) -> u64 {
        let bytes = bytes.next_multiple_of(16);
        if self.scratch + bytes > 0x20000 {
            self.scratch = 0x10000;
        }
        let at = self.scratch;
        self.scratch += bytes;
        at
    }

    fn chain(&mut self, request: &Request, room: u16, pieces: usize, indirect: bool) {
        let mut bytes = request.bytes(self.model.generation);
        bytes.truncate(0x4000);
        let at = self.allocate(bytes.len() as u64);
        self.poke(at, &bytes);
        let room = u32::from(room % 600);
        let record = self.allocate(u64::from(room));
        let step = bytes.len().div_ceil(pieces).max(1);
        let mut buffers: Vec<(u64, u32, u16)> = (0..bytes.len())
            .step_by(step)
            .map(|from| (at + from as u64, step.min(bytes.len() - from) as u32, 0))
            .collect();
        let half = room / 2;
        buffers.push((record, half, 2));
        buffers.push((record + u64::from(half), room - half, 2));
        let last = buffers.len() - 1;
        let table = if indirect {
            self.allocate(16 * buffers.len() as u64)
        } else {
            DESCRIPTORS
        };
        let first = if indirect { 0 } else { self.next_slot };
        for (index, (address, len, flags)) in buffers.iter().enumerate() {
            let wrap = if indirect { u16::MAX } else { SIZE };
            let slot = (first + index as u16) % wrap;
            let flags = flags | u16::from(index != last);
            let next = (first + index as u16 + 1) % wrap;
            self.poke(
                table + 16 * u64::from(slot),
                &descriptor(*address, *len, flags, next),
            );
        }
        let head = self.next_slot;
        if indirect {
            let whole = descriptor(table, 16 * buffers.len() as u32, 4, 0);
            self.poke(DESCRIPTORS + 16 * u64::from(head), &whole);
            self.next_slot = (head + 1) % SIZE;
        } else {
            self.next_slot = (head + buffers.len() as u16) % SIZE;
        }
        self.make_available(head);
    }

    /// Serves on both sides and compares. Returns whether there is a point in going on.
    fn serve(&mut self) -> bool {
        let next = self.ring.queue_next_avail();
        let used_before = self.used_index();
        let expected = self.model.pass(next);
        self.device
            .serve_batches(URGENT_QUEUE, &self.ring, &mut self.worker);
        if expected.unpredictable {
            return false;
        }
        let count = usize::from(self.used_index().wrapping_sub(used_before));
        let found: Vec<(u16, u32)> = (0..count as u16)
            .map(|index| {
                let slot = u64::from(used_before.wrapping_add(index) % SIZE);
                let bytes = self.peek(USED + 4 + 8 * slot, 8);
                let word = |from: usize| {
                    u32::from_le_bytes(bytes[from..from + 4].try_into().expect("4 bytes"))
                };
                (word(0) as u16, word(4))
            })
            .collect();
        assert_eq!(self.device.is_broken(URGENT_QUEUE), expected.broken);
        // A ring is as long as it is: of more completions only the last are there.
        assert_eq!(count, expected.used.len());
        if count <= usize::from(SIZE) {
            assert_eq!(found, expected.used);
        }
        // What only the device knows: its times, the used ring, and when it wants kicks.
        let mut known = expected.times;
        known.push((USED, 4 + 8 * u64::from(SIZE) + 2));
        for (address, len) in known {
            let bytes = self.peek(address, len as usize);
            let at = address as usize;
            self.model.guest[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        for (start, len) in TABLE {
            let model = &self.model.guest[start as usize..(start + len) as usize];
            let found = self.peek(start, len as usize);
            // As a whole first: to look at every byte takes longer than all the rest.
            if found != model
                && let Some(at) = (0..found.len()).find(|at| found[*at] != model[*at])
            {
                panic!(
                    "guest memory differs at {:#x}: {:#x}, expected {:#x}",
                    start + at as u64,
                    found[at],
                    model[at]
                );
            }
        }
        // SAFETY: `device_memory` is the start of DEVICE_BYTES mapped bytes, and the device rests while they are looked
        // at.
        let found = unsafe { std::slice::from_raw_parts(device_memory(self.device), DEVICE_BYTES) };
        assert!(found == &self.model.device[..], "device memory differs");
        !expected.broken
    }

    fn used_index(&self) -> u16 {
        let bytes = self.peek(USED + 2, 2);
        u16::from_le_bytes([bytes[0], bytes[1]])
    }

    fn peek(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.mappings
            .read_slice(&mut bytes, GuestAddress(address))
            .expect("within the table");
        bytes
    }
}

fn descriptor(address: u64, len: u32, flags: u16, next: u16) -> Vec<u8> {
    let mut bytes = address.to_le_bytes().to_vec();
    bytes.extend(len.to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    bytes.extend(next.to_le_bytes());
    bytes
}
