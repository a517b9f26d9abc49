// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The bytes are batches of the MMU queue, most of them nearly right. What jobs then see is compared with a plain map from
//! pages to targets, and every answer with what the map says about the batch.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, OnceLock},
};

use arbitrary::{Arbitrary, Unstructured};
use hmm_protocol::{
    BatchFlags, ControlKind, ControlRequest, FaultAccess, MapEntry, MapFlags, MapHeader, MapOp,
    SessionRequest, Status,
};
use vhost_user_hmm::{
    engine::{Engine, Job, Pace, Workspace},
    guest_memory::GuestMemory,
    layout::Role,
    mmu::{MissReason, Section},
};
use zerocopy::IntoBytes;

use crate::fixture;

const PAGE: u64 = 4096;
const GRANULE: u64 = 2 << 20;
/// Bytes of device memory.
const DEVICE: u64 = 8 << 20;
/// The guest's memory: two regions that touch, and a gap behind them.
const GUEST: [(u64, u64); 2] = [(0, 4 << 20), (4 << 20, 3 << 20)];
/// The numbers of contexts are below this one.
const CONTEXTS: u8 = 3;
/// Longer maps are left out: the map of the model has an entry for each page.
const LONGEST: u64 = 8 << 20;

/// What is mapped at each page: its target and its flags.
type Pages = BTreeMap<u64, (u64, MapFlags)>;

#[derive(Clone, Copy, Debug, Arbitrary)]
enum Place {
    /// A page of the first granules.
    Page(u16),
    /// A granule.
    Granule(u8),
    /// Close to the end of the addresses.
    Last(u8),
    Anywhere(u64),
}

impl Place {
    fn address(self) -> u64 {
        match self {
            Self::Page(page) => u64::from(page % 2048) * PAGE,
            Self::Granule(granule) => u64::from(granule % 6) * GRANULE,
            Self::Last(pages) => (1 << 57) - u64::from(pages) * PAGE,
            Self::Anywhere(address) => address,
        }
    }
}

#[derive(Clone, Copy, Debug, Arbitrary)]
struct Entry {
    op: u8,
    flags: u8,
    shift: u8,
    address: Place,
    len: Place,
    target: Place,
    spoilt: Option<(u8, u8)>,
}

#[derive(Debug, Arbitrary)]
enum Step {
    Batch {
        context: u8,
        #[arbitrary(with = entries)]
        entries: Vec<Entry>,
    },
    Bytes(Vec<u8>),
    Create(u8),
    Destroy(u8),
    Look(u8, Place),
}

/// Mostly some entries, so that many a batch has one that is right and one that is not.
fn entries(from: &mut Unstructured<'_>) -> arbitrary::Result<Vec<Entry>> {
    let count = from.int_in_range(0..=7)?;
    (0..count).map(|_| Entry::arbitrary(from)).collect()
}

impl Entry {
    fn wire(self) -> MapEntry {
        let (address, len) = (self.address.address(), self.len.address());
        let target = self.target.address();
        // Of sixteen values most are sound: what is wrong everywhere is refused at the first check.
        let permissions = MapFlags([1, 3, 7, 7][usize::from(self.flags % 4)]);
        let kind = MapFlags(self.flags & MapFlags::DEVICE.0);
        let mut entry = match self.op % 16 {
            0..=4 => MapEntry::map(address, len, target, permissions.union(kind), 12),
            5..=8 => MapEntry::map(
                address / GRANULE * GRANULE,
                len.min(LONGEST)
                    .next_multiple_of(GRANULE)
                    .clamp(GRANULE, LONGEST),
                target / GRANULE * GRANULE,
                permissions.union(kind),
                21,
            ),
            9..=11 => MapEntry::unmap(address, len),
            12..=13 => MapEntry::protect(address, len, permissions),
            14 => MapEntry::resume(address),
            _ => MapEntry::map(address, len, target, MapFlags(self.flags), self.shift),
        };
        if let Some((at, value)) = self.spoilt
            && let Some(byte) = entry.as_mut_bytes().get_mut(usize::from(at % 64))
        {
            *byte = value;
        }
        entry
    }
}

struct NoPace;

impl Pace for NoPace {
    fn between_slices(&self) {}
    fn is_wanted(&self) -> bool {
        false
    }
}

struct Rig {
    engine: Engine,
    guest: GuestMemory,
}

/// How often a batch had a status, by its name, and how often a page that is mapped was looked at (`looks`).
static RESULTS: Mutex<BTreeMap<&'static str, u64>> = Mutex::new(BTreeMap::new());

/// What came of all batches so far, and the number of `looks` at a page that is mapped.
pub fn results() -> BTreeMap<&'static str, u64> {
    RESULTS.lock().expect("no panic before").clone()
}

fn count(what: &'static str) {
    *RESULTS
        .lock()
        .expect("no panic before")
        .entry(what)
        .or_default() += 1;
}

/// The bytes describe steps.
pub fn run(data: &[u8]) {
    static RIG: OnceLock<Mutex<Rig>> = OnceLock::new();
    let rig = RIG.get_or_init(|| {
        Mutex::new(Rig {
            engine: fixture::engine_with(DEVICE),
            guest: GuestMemory::new(Arc::clone(&fixture::guest_memory(&GUEST))),
        })
    });
    let rig = rig.lock().expect("no panic before");
    let open = SessionRequest {
        request: ControlRequest::new(ControlKind::SessionOpen, 0, 0, 0, 0),
        key: [1; 16],
    };
    let mut run = Run {
        rig: &rig,
        generation: rig.engine.control(open.as_bytes()).generation.get(),
        contexts: BTreeMap::new(),
    };
    run.create(0);
    let mut from = Unstructured::new(data);
    for _ in 0..64 {
        match Step::arbitrary(&mut from) {
            Ok(step) if !from.is_empty() => run.step(&step),
            _ => break,
        }
    }
    run.check_everything();
}

struct Run<'a> {
    rig: &'a Rig,
    generation: u64,
    contexts: BTreeMap<u32, Pages>,
}

impl Run<'_> {
    fn step(&mut self, step: &Step) {
        match step {
            Step::Batch { context, entries } => {
                let entries: Vec<MapEntry> = (entries.iter().take(16))
                    .map(|entry| entry.wire())
                    .filter(|entry| entry.op != MapOp::Map as u8 || entry.len.get() <= LONGEST)
                    .collect();
                self.batch(u32::from(context % CONTEXTS), &entries);
            }
            Step::Bytes(bytes) => self.bytes(bytes),
            Step::Create(context) => self.create(u32::from(context % CONTEXTS)),
            Step::Destroy(context) => self.destroy(u32::from(context % CONTEXTS)),
            Step::Look(context, place) => {
                let context = u32::from(context % CONTEXTS);
                self.look(context, &[place.address()]);
            }
        }
    }

    fn ask(&self, kind: ControlKind, context: u32) -> Status {
        let request = ControlRequest::new(kind, 0, 0, u64::from(context), 0);
        let reply = self.rig.engine.control(request.as_bytes());
        Status::from_wire(reply.status).expect("a status of this version")
    }

    fn create(&mut self, context: u32) {
        let expected = match self.contexts.contains_key(&context) {
            true => Status::BadContext,
            false => Status::Ok,
        };
        assert_eq!(self.ask(ControlKind::ContextCreate, context), expected);
        self.contexts.entry(context).or_default();
    }

    fn destroy(&mut self, context: u32) {
        let expected = match self.contexts.remove(&context) {
            Some(_) => Status::Ok,
            None => Status::BadContext,
        };
        assert_eq!(self.ask(ControlKind::ContextDestroy, context), expected);
    }

    fn execute(&self, request: &[u8], workspace: &mut Workspace) -> (Status, u32, u32) {
        let job = Job {
            role: Role::Mmu,
            guest: &self.rig.guest,
            pace: &NoPace,
            status_room: usize::MAX,
        };
        let report = (self.rig.engine)
            .execute_map(request, &job, workspace)
            .expect("nothing wants the worker");
        assert_eq!(report.completion.status, report.status.to_wire());
        let completion = report.completion;
        (
            report.status,
            completion.entries_ok.get(),
            completion.first_error.get(),
        )
    }

    fn batch(&mut self, context: u32, entries: &[MapEntry]) {
        let header = MapHeader::new(
            BatchFlags::STATUS_ARRAY,
            entries.len() as u32,
            7,
            self.generation,
            context,
        );
        let request = [header.as_bytes(), entries.as_bytes()].concat();
        let mut workspace = Workspace::default();
        let (status, ok, first_error) = self.execute(&request, &mut workspace);
        let limits = self.rig.engine.limits();
        if entries.is_empty() {
            assert_eq!(status, Status::BadCount);
            return;
        }
        let Some(pages) = self.contexts.get_mut(&context) else {
            assert_eq!(status, Status::BadContext);
            return;
        };
        let mut expected = (Status::Ok, entries.len() as u32, u32::MAX);
        for (index, entry) in (0..).zip(entries) {
            let done = entry
                .validate(limits)
                .and_then(|op| apply(pages, entry, op));
            if let Err(status) = done {
                expected = (status, index, index);
                break;
            }
        }
        assert_eq!((status, ok, first_error), expected, "{entries:?}");
        count(status.name());
        let statuses = (workspace.statuses().iter()).filter(|status| **status == 1);
        assert_eq!(statuses.count() as u32, ok);
        let ends: Vec<u64> = (entries.iter())
            .flat_map(|entry| {
                let (start, end) = (
                    entry.address.get(),
                    entry.address.get().wrapping_add(entry.len.get()),
                );
                [start.wrapping_sub(1), start, end.wrapping_sub(1), end]
            })
            .collect();
        self.look(context, &ends);
    }

    /// Bytes of any kind. If they mean something, the contexts begin anew: the model did not see what it was.
    fn bytes(&mut self, bytes: &[u8]) {
        let mut request = bytes.to_vec();
        if let Some(kind) = request.first_mut() {
            *kind = 3;
        }
        let (status, ok, _) = self.execute(&request, &mut Workspace::default());
        assert_ne!(status, Status::NotAttempted);
        if ok > 0 {
            let all: Vec<u32> = self.contexts.keys().copied().collect();
            for context in all {
                self.destroy(context);
            }
        }
    }

    /// What jobs see at these addresses.
    fn look(&self, context: u32, addresses: &[u64]) {
        let found = self.rig.engine.contexts().get(context);
        assert_eq!(found.is_some(), self.contexts.contains_key(&context));
        let (Some(found), Some(pages)) = (found, self.contexts.get(&context)) else {
            return;
        };
        let memories = self.rig.engine.memories(&self.rig.guest);
        let looked = found.section(&memories, &|| false, |section| {
            for address in addresses {
                self.compare(section, pages, *address);
            }
        });
        assert!(looked.is_some(), "the context was destroyed");
    }

    fn compare(&self, section: &Section<'_>, pages: &Pages, address: u64) {
        let mapped = pages.get(&(address / PAGE * PAGE));
        let flags = mapped.map_or(MapFlags::default(), |(_, flags)| *flags);
        let look = section.look(address);
        assert_eq!(look.flags, flags, "at {address:#x}");
        for (access, needed) in [
            (FaultAccess::READ, MapFlags::READ),
            (FaultAccess::WRITE, MapFlags::WRITE),
            (FaultAccess::ATOMIC, MapFlags::ATOMIC),
            (FaultAccess::FETCH, MapFlags::READ),
        ] {
            let span = section.span(address, 3 * PAGE, access);
            if mapped.is_some() {
                count("looks");
            }
            let Some((target, _)) = mapped else {
                assert_eq!(span.expect_err("unmapped").reason, MissReason::Unmapped);
                continue;
            };
            let span = match span {
                Err(miss) => {
                    assert_eq!(miss.reason, MissReason::Forbidden);
                    assert_eq!((miss.address, miss.access), (address, access));
                    assert!(!flags.contains(needed), "at {address:#x}");
                    continue;
                }
                Ok(span) => span,
            };
            assert!(flags.contains(needed), "at {address:#x}");
            assert!((1..=3 * PAGE).contains(&(span.len() as u64)));
            // All of it is mapped one behind the other.
            let last = (address + span.len() as u64 - 1) / PAGE * PAGE;
            let first = address / PAGE * PAGE;
            let expected = (target + (last - first), flags);
            assert_eq!(pages.get(&last), Some(&expected), "at {address:#x}");
            let start = target + address % PAGE;
            let host = match flags.contains(MapFlags::DEVICE) {
                true => self.rig.engine.memory().at(start, span.len() as u64),
                false => {
                    (self.rig.guest).contiguous(start, span.len() as u64, &mut Default::default())
                }
            };
            assert_eq!(Some(span.ptr_guard_mut().as_ptr()), host);
        }
    }

    fn check_everything(&self) {
        for (context, pages) in &self.contexts {
            let addresses: Vec<u64> = (pages.keys().copied().chain([0, 1 << 57])).collect();
            self.look(*context, &addresses);
        }
        for context in self.contexts.keys() {
            assert_eq!(self.ask(ControlKind::ContextDestroy, *context), Status::Ok);
        }
        let snapshot = self.rig.engine.contexts().snapshot();
        assert_eq!((snapshot.present, snapshot.table_bytes), (0, 0));
    }
}

/// What a sound entry means, page by page.
fn apply(pages: &mut Pages, entry: &MapEntry, op: MapOp) -> Result<(), Status> {
    let (start, len) = (entry.address.get(), entry.len.get());
    let flags = MapFlags(entry.flags);
    match op {
        MapOp::Map => {
            let target = entry.target.get();
            let end = GUEST.iter().map(|(start, len)| start + len).max();
            if !flags.contains(MapFlags::DEVICE) && Some(target.saturating_add(len)) > end {
                return Err(Status::BadGuestAddress);
            }
            for done in (0..len).step_by(PAGE as usize) {
                pages.insert(start + done, (target + done, flags));
            }
        }
        MapOp::Unmap | MapOp::Protect => {
            let keep = MapFlags(entry.flags | MapFlags::DEVICE.0);
            let range: Vec<u64> = pages.range(start..start + len).map(|(at, _)| *at).collect();
            for at in range {
                if let Some((_, flags)) = pages.get_mut(&at) {
                    *flags = flags.intersection(keep);
                    if !flags.contains(MapFlags::READ) {
                        pages.remove(&at);
                    }
                }
            }
        }
        MapOp::Resume | MapOp::Fail => return Err(Status::BadFault),
    }
    Ok(())
}
