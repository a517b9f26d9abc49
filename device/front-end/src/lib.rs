// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A vhost-user front end for tests and benchmarks: it starts the real process, plays the guest's part with rings of
//! its own, and knows nothing of the device but its command line and its wire format.
//!
//! Whatever should not happen ends in a panic, because its users are tests.

mod guest;
mod jobs;
mod process;
mod ring;

pub use self::{
    guest::{Guest, Layout},
    jobs::end_status,
    process::Process,
    ring::{Descriptor, Ring, Used},
};

use std::{
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use hmm_protocol::{
    AccessFlags, BULK_QUEUE_FIRST, BatchFlags, BatchHeader, BatchKind, CONTROL_BYTES,
    CONTROL_QUEUE, Completion, Config, ControlKind, ControlReply, ControlRequest, CopyEntry,
    EVENT_BYTES, EVENT_QUEUE, Event, Features, MapEntry, MapHeader, PageList, SessionFlags,
    SessionKey, SessionRequest, Status, URGENT_QUEUE, job_queue_first, mmu_queue,
    status_array_bytes,
};
use vhost::{
    VhostBackend,
    vhost_user::{
        Frontend, VhostUserFrontend,
        message::{VhostUserConfigFlags, VhostUserProtocolFeatures},
    },
};
use zerocopy::{FromBytes, IntoBytes};

use self::jobs::ReportBuffers;

/// The feature bit `VIRTIO_F_EVENT_IDX`.
pub const EVENT_IDX: u64 = 1 << 29;
const PROTOCOL_FEATURES: u64 = 1 << 30;

/// Where rings and requests are in the guest's memory; data begins at [`DATA`].
const RING_BYTES: u64 = 64 << 10;
const SCRATCH: u64 = 3 << 20;
const SCRATCH_BYTES: u64 = 256 << 10;
/// More queues than any device has.
pub const MOST_QUEUES: u64 = 37;
/// The first address that no ring or request uses.
pub const DATA: u64 = 16 << 20;

/// What came back for a batch.
#[derive(Debug)]
pub struct Answer {
    /// The record.
    pub completion: Completion,
    /// The status array with its padding; empty if none was asked for.
    pub statuses: Vec<u8>,
    /// The used length.
    pub used_len: u32,
}

impl Answer {
    /// The batch's status.
    pub fn status(&self) -> Status {
        Status::from_wire(self.completion.status).expect("a status of this version")
    }

    /// The status of an entry.
    pub fn entry(&self, index: usize) -> Status {
        Status::from_wire(self.statuses[index]).expect("a status of this version")
    }
}

/// A front end with its guest.
pub struct FrontEnd {
    /// The connection.
    pub frontend: Frontend,
    /// The guest's memory.
    pub guest: Guest,
    /// The rings, by their queue's index.
    pub rings: Vec<Ring>,
    /// The open session's generation, which batches carry.
    pub generation: u64,
    /// The key with which sessions are opened and contents are adopted.
    pub key: SessionKey,
    features: u64,
    /// Number of bulk queues, if contexts were negotiated.
    bulk_queues: Option<u16>,
    reports: ReportBuffers,
    next_cookie: AtomicU64,
}

impl FrontEnd {
    /// Connects to a device with `bulk_queues` bulk queues and starts its queues. No session is open yet.
    pub fn start(socket: &Path, bulk_queues: u16, layout: &Layout) -> Self {
        let frontend = Frontend::connect(socket, MOST_QUEUES).expect("the device accepts");
        Self::start_on(frontend, bulk_queues, layout, u64::MAX)
    }

    /// The same with a connection that exists, offering only the features in `mask`.
    pub fn start_on(frontend: Frontend, bulk_queues: u16, layout: &Layout, mask: u64) -> Self {
        let guest = Guest::new(layout);
        let mut this = Self {
            frontend,
            guest,
            rings: Vec::new(),
            generation: 0,
            key: [0x5a; 16],
            features: 0,
            bulk_queues: None,
            reports: ReportBuffers::default(),
            next_cookie: AtomicU64::new(1),
        };
        this.frontend.set_owner().expect("set owner");
        let offered = this.frontend.get_features().expect("features");
        this.features = offered & (mask | PROTOCOL_FEATURES);
        // The library checks protocol messages against what was acknowledged.
        this.frontend
            .set_features(this.features)
            .expect("set features");
        let protocol = this
            .frontend
            .get_protocol_features()
            .expect("protocol features");
        this.frontend
            .set_protocol_features(
                protocol
                    & (VhostUserProtocolFeatures::MQ
                        | VhostUserProtocolFeatures::CONFIG
                        | VhostUserProtocolFeatures::REPLY_ACK
                        | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
                        | VhostUserProtocolFeatures::RESET_DEVICE),
            )
            .expect("set protocol features");
        this.frontend
            .set_hdr_flags(vhost::vhost_user::message::VhostUserHeaderFlag::NEED_REPLY);
        let regions = this.guest.regions();
        for region in &regions {
            this.frontend.add_mem_region(region).expect("add region");
        }
        // The last ones are those of contexts and jobs, if the driver has them.
        let queues = match Features(this.features).contains(Features::CONTEXTS) {
            true => {
                this.bulk_queues = Some(bulk_queues);
                let jobs = this.config().job_queues.get() as u16;
                job_queue_first(bulk_queues) + jobs
            }
            false => BULK_QUEUE_FIRST + bulk_queues,
        };
        for index in 0..queues {
            this.rings.push(Ring::new(
                u64::from(index) * RING_BYTES,
                256,
                this.features & EVENT_IDX != 0,
            ));
        }
        this.start_queues();
        this
    }

    /// Sets every ring up from scratch, as a driver does.
    pub fn start_queues(&mut self) {
        for index in 0..self.rings.len() {
            self.start_queue(index);
        }
    }

    /// Sets one ring up from scratch.
    pub fn start_queue(&mut self, index: usize) {
        self.rings[index].reset(&self.guest);
        self.start_ring(index);
    }

    /// Tells the device of a ring as it is.
    pub fn start_ring(&mut self, index: usize) {
        self.continue_ring(index, 0);
    }

    /// The same of a ring that was stopped at `base`.
    pub fn continue_ring(&mut self, index: usize, base: u16) {
        let ring = &self.rings[index];
        let frontend = &mut self.frontend;
        frontend.set_vring_num(index, ring.size()).expect("num");
        frontend.set_vring_base(index, base).expect("base");
        frontend
            .set_vring_addr(index, &ring.config(&self.guest))
            .expect("addresses");
        frontend.set_vring_call(index, &ring.call).expect("call");
        frontend.set_vring_kick(index, &ring.kick).expect("kick");
        frontend.set_vring_enable(index, true).expect("enable");
    }

    /// What QEMU does when the guest reboots or its driver resets the device.
    pub fn reboot(&mut self) {
        for index in 0..self.rings.len() {
            self.frontend.get_vring_base(index).expect("vring base");
        }
        self.frontend.set_features(self.features).expect("features");
        self.start_queues();
    }

    /// The features that were negotiated.
    pub fn negotiated(&self) -> Features {
        Features(self.features)
    }

    /// The configuration space.
    pub fn config(&mut self) -> Config {
        let (_, bytes) = self
            .frontend
            .get_config(0, 128, VhostUserConfigFlags::empty(), &[0; 128])
            .expect("config");
        Config::read_from_bytes(&bytes).expect("128 bytes")
    }

    /// Sends a control request and returns the reply.
    pub fn control(&mut self, request: &[u8]) -> (ControlReply, u32) {
        let (reply, _, used) = self.control_with_rest(request, 0);
        (reply, used)
    }

    /// The same with room for `rest` bytes behind the reply.
    pub fn control_with_rest(
        &mut self,
        request: &[u8],
        rest: usize,
    ) -> (ControlReply, Vec<u8>, u32) {
        let at = scratch(CONTROL_QUEUE);
        let reply_at = at + SCRATCH_BYTES / 2;
        let room = CONTROL_BYTES + rest;
        self.guest.write(at, request);
        self.guest.write(reply_at, &vec![0xee; room]);
        let readable = [(at, request.len() as u32)];
        let ring = &mut self.rings[usize::from(CONTROL_QUEUE)];
        ring.submit(&self.guest, &readable, &[(reply_at, room as u32)]);
        ring.kick();
        let used = ring.wait(&self.guest);
        let bytes = self.guest.read(reply_at, room);
        let (reply, rest) = ControlReply::read_from_prefix(&bytes).expect("a reply");
        (reply, rest.to_vec(), used.len)
    }

    /// Opens a fresh session.
    pub fn open(&mut self) -> u64 {
        let request =
            self.session_request(ControlRequest::new(ControlKind::SessionOpen, 0, 77, 0, 0));
        let (reply, len) = self.control(&request);
        assert_eq!(reply.status, Status::Ok.to_wire());
        assert_eq!((reply.cookie.get(), len), (77, CONTROL_BYTES as u32));
        self.generation = reply.generation.get();
        self.generation
    }

    /// Adopts `generation`; the status tells whether it went.
    pub fn adopt(&mut self, generation: u64) -> Status {
        let flags = SessionFlags::ADOPT.0;
        let request = ControlRequest::new(ControlKind::SessionOpen, flags, 78, generation, 0);
        let (reply, _) = self.control(&self.session_request(request));
        let status = Status::from_wire(reply.status).expect("a status");
        if status == Status::Ok {
            self.generation = reply.generation.get();
        }
        status
    }

    /// The bytes of a request to open a session, with the key where keys were negotiated.
    pub fn session_request(&self, request: ControlRequest) -> Vec<u8> {
        let key = self.key;
        match Features(self.features).contains(Features::SESSION_KEY) {
            true => SessionRequest { request, key }.as_bytes().to_vec(),
            false => request.as_bytes().to_vec(),
        }
    }

    fn cookie(&self) -> u64 {
        self.next_cookie.fetch_add(1, Ordering::Relaxed)
    }

    /// The bytes of a batch of entries.
    pub fn entries(&self, flags: BatchFlags, entries: &[CopyEntry]) -> Vec<u8> {
        let header = BatchHeader::new(
            BatchKind::Entries,
            flags,
            entries.len() as u32,
            self.cookie(),
            self.generation,
        );
        [header.as_bytes(), entries.as_bytes()].concat()
    }

    /// The bytes of a page list.
    pub fn page_list(&self, flags: BatchFlags, list: &PageList, addresses: &[u64]) -> Vec<u8> {
        let header = BatchHeader::new(
            BatchKind::PageList,
            flags,
            addresses.len() as u32,
            self.cookie(),
            self.generation,
        );
        let addresses: Vec<u8> = addresses.iter().flat_map(|at| at.to_le_bytes()).collect();
        [header.as_bytes(), list.as_bytes(), &addresses].concat()
    }

    /// Which queue changes page tables.
    pub fn mmu_queue(&self) -> u16 {
        mmu_queue(self.bulk_queues.expect("contexts were negotiated"))
    }

    /// The bytes of a batch that changes the page tables of `context`.
    pub fn map_batch(&self, flags: BatchFlags, context: u32, entries: &[MapEntry]) -> Vec<u8> {
        let header = MapHeader::new(
            flags,
            entries.len() as u32,
            self.cookie(),
            self.generation,
            context,
        );
        [header.as_bytes(), entries.as_bytes()].concat()
    }

    /// Changes the page tables of `context`.
    pub fn change(&mut self, context: u32, entries: &[MapEntry]) -> Answer {
        let request = self.map_batch(BatchFlags::STATUS_ARRAY, context, entries);
        self.execute_on(self.mmu_queue(), &request)
    }

    /// Sends a control request that is not about sessions; returns the status of the reply.
    pub fn ask(&mut self, kind: ControlKind, argument0: u64, argument1: u64) -> Status {
        let request = ControlRequest::new(kind, 0, self.cookie(), argument0, argument1);
        let (reply, _) = self.control(request.as_bytes());
        Status::from_wire(reply.status).expect("a status of this version")
    }

    /// Reads the access bits of `blocks` blocks from block `first` on: which were accessed, and which were written.
    pub fn access_bits(&mut self, first: u64, blocks: u64, clear: bool) -> Result<Vec<u8>, Status> {
        let flags = if clear { AccessFlags::CLEAR.0 } else { 0 };
        let kind = ControlKind::AccessBits;
        let request = ControlRequest::new(kind, flags, self.cookie(), first, blocks);
        let bytes = (blocks / 4) as usize;
        let (reply, rest, used) = self.control_with_rest(request.as_bytes(), bytes);
        match Status::from_wire(reply.status).expect("a status of this version") {
            Status::Ok => {
                assert_eq!(used as usize, CONTROL_BYTES + bytes);
                Ok(rest)
            }
            status => Err(status),
        }
    }

    /// Puts a request on `queue` with room for the record and `statuses` statuses; returns where the record will be.
    pub fn submit(&mut self, queue: u16, request: &[u8], statuses: u32) -> u64 {
        let slot = u64::from(self.rings[usize::from(queue)].in_flight()) % 2;
        let at = scratch(queue) + slot * SCRATCH_BYTES / 2;
        let record = at + SCRATCH_BYTES / 2 - 8192;
        assert!(request.len() as u64 <= SCRATCH_BYTES / 2 - 8192);
        let room = (32 + status_array_bytes(statuses)) as u32;
        self.guest.write(at, request);
        self.guest.write(record, &vec![0; room as usize]);
        let ring = &mut self.rings[usize::from(queue)];
        ring.submit(
            &self.guest,
            &[(at, request.len() as u32)],
            &[(record, room)],
        );
        record
    }

    /// Executes a request on `queue`.
    pub fn execute_on(&mut self, queue: u16, request: &[u8]) -> Answer {
        let wants_statuses = request.get(1).is_some_and(|flags| flags & 4 != 0);
        let count = request.get(4..8).map_or(0, |bytes| {
            u32::from_le_bytes(bytes.try_into().expect("four bytes"))
        });
        let statuses = if wants_statuses { count.min(4096) } else { 0 };
        let record = self.submit(queue, request, statuses);
        self.rings[usize::from(queue)].kick();
        self.answer(queue, record, statuses)
    }

    /// Waits for the next completion of `queue`, whose record is at `record`.
    pub fn answer(&mut self, queue: u16, record: u64, statuses: u32) -> Answer {
        let used = self.rings[usize::from(queue)].wait(&self.guest);
        let bytes = self.guest.read(record, 32 + status_array_bytes(statuses));
        let (completion, rest) = Completion::read_from_prefix(&bytes).expect("a record");
        Answer {
            completion,
            statuses: rest.to_vec(),
            used_len: used.len,
        }
    }

    /// Executes a request on the first bulk queue.
    pub fn execute(&mut self, request: &[u8]) -> Answer {
        self.execute_on(BULK_QUEUE_FIRST, request)
    }

    /// Executes entries with statuses on the first bulk queue.
    pub fn run(&mut self, entries: &[CopyEntry]) -> Answer {
        let request = self.entries(BatchFlags::STATUS_ARRAY, entries);
        self.execute(&request)
    }

    /// Executes entries on the urgent queue.
    pub fn run_urgent(&mut self, entries: &[CopyEntry]) -> Answer {
        let request = self.entries(BatchFlags::STATUS_ARRAY, entries);
        self.execute_on(URGENT_QUEUE, &request)
    }

    /// Posts a buffer for an event; returns its address.
    pub fn post_event_buffer(&mut self, slot: u64) -> u64 {
        let at = scratch(EVENT_QUEUE) + slot * EVENT_BYTES as u64;
        self.guest.write(at, &[0; EVENT_BYTES]);
        let ring = &mut self.rings[usize::from(EVENT_QUEUE)];
        ring.submit(&self.guest, &[], &[(at, EVENT_BYTES as u32)]);
        ring.kick();
        at
    }

    /// Waits for an event in the buffer at `at`.
    pub fn event(&mut self, at: u64) -> Event {
        let used = self.rings[usize::from(EVENT_QUEUE)].wait(&self.guest);
        assert_eq!(used.len, EVENT_BYTES as u32);
        Event::read_from_bytes(&self.guest.read(at, EVENT_BYTES)).expect("an event")
    }
}

fn scratch(queue: u16) -> u64 {
    SCRATCH + u64::from(queue) * SCRATCH_BYTES
}

/// Bytes that tell their place.
pub fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}
