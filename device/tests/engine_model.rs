// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The engine against a model: two byte arrays and the rules of the wire format, entry by entry.

use std::sync::Arc;

use hmm_protocol::{
    BatchFlags, BatchHeader, BatchKind, ControlKind, ControlRequest, CopyEntry, Features,
    NO_ERROR_INDEX, Op, PAGE_ADDRESS_SKIP, PAGE_ADDRESS_ZERO, PageList, SessionRequest, Status,
};
use proptest::prelude::*;
use vhost_user_hmm::{
    engine::{CopyChoice, CopyRoutine, CopyRoutines, Engine, Job, Pace, Shape, Workspace},
    guest_memory::GuestMemory,
    inject::Faults,
    layout::Role,
    memory::DeviceMemory,
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use zerocopy::IntoBytes;

const DEVICE: usize = 2 << 20;
/// Two regions that touch, a gap, and one more; what lies between is not in the table.
const REGIONS: [(u64, usize); 3] = [(0, 0x30000), (0x30000, 0x20000), (0x80000, 0x10000)];

struct NoPace;

impl Pace for NoPace {
    fn between_slices(&self) {}
    fn is_wanted(&self) -> bool {
        false
    }
}

/// Any routine that this processor has.
fn routine() -> impl Strategy<Value = CopyRoutine> {
    proptest::sample::select(CopyRoutine::available().collect::<Vec<_>>())
}

struct Rig {
    engine: Engine,
    guest: GuestMemory,
    mappings: Arc<GuestMemoryMmap>,
    generation: u64,
    model_device: Vec<u8>,
    model_guest: Vec<u8>,
}

impl Rig {
    fn new(routine: CopyRoutine) -> Self {
        let ranges: Vec<_> = REGIONS
            .iter()
            .map(|(start, len)| (GuestAddress(*start), *len))
            .collect();
        let mappings = Arc::new(GuestMemoryMmap::from_ranges(&ranges).expect("memory"));
        let mut model_guest = vec![0; 0x90000];
        for (start, len) in REGIONS {
            let bytes: Vec<u8> = (0..len as u64)
                .map(|at| ((start + at).wrapping_mul(0x9e37_79b9) >> 7) as u8)
                .collect();
            mappings
                .write_slice(&bytes, GuestAddress(start))
                .expect("memory");
            model_guest[start as usize..start as usize + len].copy_from_slice(&bytes);
        }
        let memory = DeviceMemory::anonymous(DEVICE as u64).expect("memory");
        let engine = Engine::new(
            memory,
            Shape::default(),
            Faults::default(),
            CopyRoutines::new(CopyChoice::Fixed(routine)),
            None,
        );
        engine.negotiate(Features::ALL);
        let open = SessionRequest {
            request: ControlRequest::new(ControlKind::SessionOpen, 0, 0, 0, 0),
            key: [1; 16],
        };
        let generation = engine.control(open.as_bytes()).generation.get();
        Self {
            guest: GuestMemory::new(Arc::clone(&mappings)),
            mappings,
            engine,
            generation,
            model_device: vec![0; DEVICE],
            model_guest,
        }
    }

    fn in_table(address: u64, len: u64) -> bool {
        address.checked_add(len).is_some()
            && (address..address + len).all(|byte| {
                REGIONS
                    .iter()
                    .any(|(start, size)| byte >= *start && byte < start + *size as u64)
            })
    }

    /// What an entry does, by the rules; one that is not sound does nothing.
    fn model(&mut self, entry: &CopyEntry, granule: u64) -> (Status, u64) {
        if let Err(status) = entry.validate(self.engine.limits(), Features::ALL) {
            return (status, 0);
        }
        let (len, device) = (
            entry.len.get() as usize,
            entry.device_address.get() as usize,
        );
        let address = entry.address.get();
        let op = Op::from_wire(entry.op).expect("validated");
        if matches!(op, Op::ToDevice | Op::ToSystem) {
            // Whole pages at once or one by one: the answer is the same.
            let covered = (0..len as u64)
                .step_by(granule as usize)
                .all(|at| Self::in_table(address + at, granule.min(len as u64 - at)));
            if !covered {
                return (Status::BadGuestAddress, 0);
            }
        }
        let guest = address as usize;
        match op {
            Op::ToDevice => self.model_device[device..device + len]
                .copy_from_slice(&self.model_guest[guest..guest + len]),
            Op::ToSystem => {
                self.model_guest[guest..guest + len]
                    .copy_from_slice(&self.model_device[device..device + len]);
                if entry.flags & 2 != 0 {
                    self.model_device[device..device + len].fill(0);
                }
            }
            Op::Copy => self.model_device.copy_within(guest..guest + len, device),
            Op::Fill => {
                for at in (0..len).step_by(8) {
                    self.model_device[device + at..device + at + 8]
                        .copy_from_slice(&address.to_le_bytes());
                }
            }
            Op::Nop => {}
        }
        (Status::Ok, len as u64)
    }

    /// Executes `request`, whose entries are `entries` by the rules, and compares everything.
    fn check(
        &mut self,
        request: &[u8],
        flags: BatchFlags,
        entries: &[CopyEntry],
    ) -> Result<(), TestCaseError> {
        let mut expected = Vec::new();
        let (mut bytes, mut first, mut status) = (0, NO_ERROR_INDEX, Status::Ok);
        for (index, entry) in entries.iter().enumerate() {
            if flags.contains(BatchFlags::ORDERED) && first != NO_ERROR_INDEX {
                expected.push(Status::NotAttempted.to_wire());
                continue;
            }
            let (result, done) = self.model(entry, 4096);
            expected.push(result.to_wire());
            bytes += done;
            if result != Status::Ok && first == NO_ERROR_INDEX {
                (first, status) = (index as u32, result);
            }
        }
        let ok = expected.iter().filter(|byte| **byte == 1).count();
        expected.resize(expected.len().next_multiple_of(8), 0);
        let mut workspace = Workspace::default();
        let job = Job {
            role: Role::Bulk(0),
            guest: &self.guest,
            pace: &NoPace,
            status_room: usize::MAX,
        };
        let report = self.engine.execute(request, &job, &mut workspace);
        prop_assert_eq!(workspace.statuses(), &expected[..]);
        prop_assert_eq!(report.status, status);
        prop_assert_eq!(report.completion.status, status.to_wire());
        prop_assert_eq!(report.completion.entries_ok.get() as usize, ok);
        prop_assert_eq!(report.completion.bytes_done.get(), bytes);
        prop_assert_eq!(report.completion.first_error.get(), first);
        self.compare_memory()
    }

    fn compare_memory(&self) -> Result<(), TestCaseError> {
        for (start, len) in REGIONS {
            let mut bytes = vec![0; len];
            self.mappings
                .read_slice(&mut bytes, GuestAddress(start))
                .expect("memory");
            let model = &self.model_guest[start as usize..start as usize + len];
            prop_assert!(bytes == model, "guest memory differs in region {start:#x}");
        }
        let at = self
            .engine
            .memory()
            .at(0, DEVICE as u64)
            .expect("all of it");
        let mut bytes = vec![0; DEVICE];
        // SAFETY: `at` is the start of DEVICE mapped bytes, and nothing runs meanwhile.
        unsafe { std::ptr::copy_nonoverlapping(at, bytes.as_mut_ptr(), DEVICE) };
        prop_assert!(bytes == self.model_device, "device memory differs");
        Ok(())
    }
}

/// Mostly sound entries; lengths and places that touch, cross and miss.
fn entry() -> impl Strategy<Value = CopyEntry> {
    let place = prop_oneof![
        8 => (0u64..0x90).prop_map(|page| page * 4096),
        4 => (0u64..0x90000 / 8).prop_map(|word| word * 8),
        1 => any::<u64>(),
    ];
    let device = prop_oneof![
        8 => (0u64..512).prop_map(|page| page * 4096),
        4 => (0u64..(DEVICE as u64) / 8).prop_map(|word| word * 8),
        1 => any::<u64>(),
    ];
    let len = prop_oneof![
        6 => Just(4096u32),
        4 => (1u32..40).prop_map(|word| word * 8),
        3 => (1u32..32).prop_map(|page| page * 4096),
        1 => any::<u32>(),
    ];
    (
        0u8..7,
        prop_oneof![6 => Just(0u8), 1 => 0u8..10],
        len,
        place,
        device,
    )
        .prop_map(|(op, flags, len, address, device)| {
            let mut entry = CopyEntry::new(Op::Nop, address, device, len);
            entry.op = op;
            entry.flags = flags;
            entry
        })
}

/// Runs of neighbours, so that the engine has something to merge.
fn batch() -> impl Strategy<Value = Vec<CopyEntry>> {
    let run = (entry(), 1usize..8, any::<bool>()).prop_map(|(mut first, count, chase)| {
        if first.op == Op::Copy as u8 && chase {
            // Each copies what the one before has written: as one they would overlap.
            let source = first.address.get() % (1 << 20);
            first.address.set(source);
            first.len.set(first.len.get() % (64 << 10));
            first
                .device_address
                .set(source + u64::from(first.len.get()));
        }
        (0..count as u64)
            .map(|index| {
                let mut next = first;
                let step = index * u64::from(first.len.get());
                let address = first.address.get();
                let moved = if matches!(first.op, 1..=3) {
                    address.wrapping_add(step)
                } else {
                    address
                };
                next.address.set(moved);
                next.device_address
                    .set(first.device_address.get().wrapping_add(step));
                next
            })
            .collect::<Vec<_>>()
    });
    proptest::collection::vec(run, 1..12).prop_map(|runs| runs.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn batches_of_entries(batches in proptest::collection::vec((batch(), 0u8..2), 1..4), routine in routine()) {
        let mut rig = Rig::new(routine);
        for (entries, ordered) in batches {
            let bytes: u64 = entries.iter().map(|entry| u64::from(entry.len.get())).sum();
            if bytes > rig.engine.limits().max_batch_bytes {
                continue;
            }
            let flags = BatchFlags(ordered).union(BatchFlags::STATUS_ARRAY);
            let header = BatchHeader::new(BatchKind::Entries, flags, entries.len() as u32, 5, rig.generation);
            let request = [header.as_bytes(), entries.as_bytes()].concat();
            rig.check(&request, flags, &entries)?;
        }
    }

    #[test]
    fn page_lists(
        lists in proptest::collection::vec((
            proptest::collection::vec(prop_oneof![
                12 => (0u64..0x90).prop_map(|page| page * 4096),
                2 => Just(PAGE_ADDRESS_ZERO),
                2 => Just(PAGE_ADDRESS_SKIP),
                1 => (0u64..0x90000).prop_map(|byte| byte),
                1 => any::<u64>(),
            ], 1..100),
            1u8..3, 0u8..2, 0u8..8, 0u64..412,
        ), 1..6),
        routine in routine(),
    ) {
        let mut rig = Rig::new(routine);
        for (addresses, op, ordered, flags, page) in lists {
            let list_flags = if op == 2 { flags & 6 } else { flags & 4 };
            let op = Op::from_wire(op).expect("1 or 2");
            let mut list = PageList::new(op, 12, page * 4096);
            list.flags = list_flags;
            let batch_flags = BatchFlags(ordered).union(BatchFlags::STATUS_ARRAY);
            let header = BatchHeader::new(
                BatchKind::PageList, batch_flags, addresses.len() as u32, 6, rig.generation,
            );
            let body: Vec<u8> = addresses.iter().flat_map(|at| at.to_le_bytes()).collect();
            let request = [header.as_bytes(), list.as_bytes(), &body].concat();
            // The same as entries: a zero page is a fill, a skipped one is nothing.
            let entries: Vec<CopyEntry> = addresses.iter().zip(page..).map(|(address, page)| {
                match *address {
                    PAGE_ADDRESS_SKIP => CopyEntry::new(Op::Nop, 0, 0, 0),
                    PAGE_ADDRESS_ZERO if op == Op::ToDevice => CopyEntry::new(Op::Fill, 0, page * 4096, 4096),
                    address => {
                        let mut entry = CopyEntry::new(op, address, page * 4096, 4096);
                        entry.flags = list_flags;
                        entry
                    }
                }
            }).collect();
            rig.check(&request, batch_flags, &entries)?;
        }
    }

    #[test]
    fn no_request_panics(
        bytes in proptest::collection::vec(any::<u8>(), 0..400), kind in 0u8..4, flags in 0u8..10, count in 0u32..14,
    ) {
        let rig = Rig::new(CopyRoutine::Memcpy);
        let mut request = bytes;
        if request.len() >= 32 {
            request[0] = kind;
            request[1] = flags;
            request[2..4].copy_from_slice(&(if kind == 2 { 8u16 } else { 32 }).to_le_bytes());
            request[4..8].copy_from_slice(&count.to_le_bytes());
            request[16..24].copy_from_slice(&rig.generation.to_le_bytes());
            request[24..32].fill(0);
        }
        let job = Job { role: Role::Urgent, guest: &rig.guest, pace: &NoPace, status_room: 64 };
        let report = rig.engine.execute(&request, &job, &mut Workspace::default());
        prop_assert_ne!(report.status, Status::NotAttempted);
        let reply = rig.engine.control(&request);
        prop_assert_ne!(reply.status, Status::NotAttempted.to_wire());
    }
}
