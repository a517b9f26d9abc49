// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Jobs, page tables and answers to page faults, in any order. A model knows which jobs are present and which faults are open:
//! every accepted job ends once, only an open fault can be answered, and nothing is written that was never mapped.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, OnceLock},
};

use arbitrary::{Arbitrary, Unstructured};
use hmm_protocol::{
    BatchFlags, ControlKind, ControlRequest, FaultAccess, Features, Job as WireJob, JobFlags,
    JobKind, MapEntry, MapFlags, MapHeader, Report, ReportKind, SessionRequest, Status,
};
use vhost_user_hmm::{
    engine::{Engine, Job, Pace, Workspace},
    guest_memory::GuestMemory,
    jobs::{Access, Buffers, Step as JobStep, TurnEnd},
    layout::Role,
    mmu::{Look, Miss, Section},
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap, VolatileSlice};
use zerocopy::IntoBytes;

use crate::fixture;

const PAGE: u64 = 4096;
/// Where jobs mostly work.
const BASE: u64 = 0x7f12_3400_0000;
/// The first pages of the guest may be mapped, the others never are.
const PAGES: u64 = 32;
const GUARD: u8 = 0xaa;
const CONTEXTS: u32 = 3;
/// How often a job is let on before it must leave.
const LOOKS: u32 = 8;

#[derive(Debug, Arbitrary)]
enum Step {
    /// A job that makes sense more often than not.
    Submit {
        kind: u8,
        flags: u8,
        context: u8,
        cookie: u8,
        arguments: [Argument; 5],
    },
    /// A job of any bytes.
    RawJob(Vec<u8>),
    /// A change of page tables.
    Map {
        context: u8,
        page: u8,
        pages: u8,
        target: u8,
        flags: u8,
    },
    /// A permission that goes, or all of them.
    Protect {
        context: u8,
        page: u8,
        pages: u8,
        flags: u8,
    },
    /// A batch of any bytes behind a good header.
    RawMap(Vec<u8>),
    /// An answer to a fault that was reported, or to one that was not.
    Answer {
        fault: u8,
        context: u8,
        how: u8,
    },
    /// So many turns of executors.
    Run(u8),
    /// So many buffers for reports.
    Deliver(u8),
    Cancel(u8),
    Create(u8),
    Destroy(u8),
    Session,
}

#[derive(Debug, Arbitrary)]
enum Argument {
    Address(u16),
    Number(u16),
    Raw(u64),
}

impl Argument {
    fn value(&self) -> u64 {
        match self {
            Self::Address(at) => BASE + u64::from(*at),
            Self::Number(number) => u64::from(*number),
            Self::Raw(raw) => *raw,
        }
    }
}

struct NoPace;

impl Pace for NoPace {
    fn between_slices(&self) {}
    fn is_wanted(&self) -> bool {
        false
    }
}

/// A section that ends after some looks.
struct Slice<'a, 's> {
    section: &'a Section<'s>,
    looks: Cell<u32>,
}

impl Access for Slice<'_, '_> {
    fn span(&self, address: u64, len: u64, access: FaultAccess) -> Result<VolatileSlice<'_>, Miss> {
        self.section.span(address, len, access)
    }

    fn look(&self, address: u64) -> Look {
        self.section.look(address)
    }

    fn should_leave(&self) -> bool {
        self.looks.set(self.looks.get() + 1);
        self.looks.get() > LOOKS
    }
}

/// Buffers that a driver posted, and what came in them.
struct Posted {
    left: u8,
    reports: Vec<Report>,
}

impl Buffers for Posted {
    fn take(&mut self) -> bool {
        let is_there = self.left > 0;
        self.left = self.left.saturating_sub(1);
        is_there
    }

    fn write(&mut self, report: &Report) -> bool {
        self.reports.push(*report);
        true
    }

    fn publish(&mut self) {}
}

struct Parts {
    engine: Engine,
    guest: GuestMemory,
    memory: Arc<GuestMemoryMmap>,
}

struct Rig<'a> {
    parts: &'a Parts,
    generation: u64,
    contexts: BTreeSet<u32>,
    /// The jobs that are present, with their context.
    jobs: BTreeMap<u64, u32>,
    /// The faults that were told and can be answered, with cookie and context.
    open: BTreeMap<u64, (u64, u32)>,
    /// Raw batches may map anything.
    is_wild: bool,
}

/// The bytes describe steps.
pub fn run(data: &[u8]) {
    let Ok(steps) = Vec::<Step>::arbitrary_take_rest(Unstructured::new(data)) else {
        return;
    };
    static PARTS: OnceLock<Mutex<Parts>> = OnceLock::new();
    let parts = PARTS.get_or_init(|| {
        let memory = fixture::guest_memory(&[(0, 2 * PAGES * PAGE)]);
        Mutex::new(Parts {
            engine: fixture::engine(),
            guest: GuestMemory::new(Arc::clone(&memory)),
            memory,
        })
    });
    let parts = parts.lock().expect("no panic before");
    let features = Features::CONTEXTS.union(Features::ACCESS_BITS);
    parts.engine.negotiate(Features::ALL.union(features));
    let fresh = vec![GUARD; (2 * PAGES * PAGE) as usize];
    (parts.memory)
        .write_slice(&fresh, GuestAddress(0))
        .expect("guest memory");
    let mut rig = Rig {
        parts: &parts,
        generation: 0,
        contexts: BTreeSet::new(),
        jobs: BTreeMap::new(),
        open: BTreeMap::new(),
        is_wild: false,
    };
    rig.session();
    for step in steps.iter().take(200) {
        rig.step(step);
    }
    rig.finish();
}

impl Rig<'_> {
    fn step(&mut self, step: &Step) {
        match step {
            Step::Submit {
                kind,
                flags,
                context,
                cookie,
                arguments,
            } => {
                let kind = JobKind::ALL[usize::from(*kind) % JobKind::ALL.len()];
                let context = u32::from(*context) % CONTEXTS;
                let arguments = arguments.each_ref().map(Argument::value);
                let flags = JobFlags(*flags & 3);
                let job = WireJob::new(
                    kind,
                    flags,
                    context,
                    u64::from(*cookie),
                    self.generation,
                    &arguments,
                );
                self.submit(job.as_bytes(), u64::from(*cookie), context);
            }
            Step::RawJob(bytes) => {
                // What is shorter than a header has no cookie.
                let cookie = (bytes.get(..32)).and_then(|bytes| bytes.get(8..16)?.try_into().ok());
                let context = bytes.get(4..8).and_then(|bytes| bytes.try_into().ok());
                self.submit(
                    bytes,
                    cookie.map_or(0, u64::from_le_bytes),
                    context.map_or(0, u32::from_le_bytes),
                );
            }
            Step::Map {
                context,
                page,
                pages,
                target,
                flags,
            } => {
                let pages = u64::from(*pages) % 8 + 1;
                let target = u64::from(*target) % (PAGES - 8) * PAGE;
                let flags = MapFlags(*flags & MapFlags::ALL.0);
                let at = BASE + u64::from(*page) % 24 * PAGE;
                let entry = MapEntry::map(at, pages * PAGE, target, flags, 12);
                self.change(*context, &[entry]);
            }
            Step::Protect {
                context,
                page,
                pages,
                flags,
            } => {
                let (at, len) = (
                    BASE + u64::from(*page) % 24 * PAGE,
                    u64::from(*pages) * PAGE,
                );
                let flags = MapFlags(*flags & MapFlags::PERMISSIONS.0);
                self.change(*context, &[MapEntry::protect(at, len, flags)]);
            }
            Step::RawMap(bytes) => {
                self.is_wild = true;
                let entries = bytes.len() / 32;
                let header =
                    MapHeader::new(BatchFlags::default(), entries as u32, 1, self.generation, 0);
                let request = [header.as_bytes(), &bytes[..entries * 32]].concat();
                let answered: Vec<u64> = bytes
                    .chunks_exact(32)
                    .filter(|entry| matches!(entry[0], 4 | 5))
                    .filter_map(|entry| Some(u64::from_le_bytes(entry[8..16].try_into().ok()?)))
                    .collect();
                self.execute_map(&request);
                // Some of them may have been answered; the model no longer knows.
                for fault in answered {
                    self.open.remove(&fault);
                }
            }
            Step::Answer {
                fault,
                context,
                how,
            } => self.answer(*fault, *context, *how),
            Step::Run(turns) => {
                for _ in 0..*turns {
                    if !self.run_turn() {
                        break;
                    }
                }
            }
            Step::Deliver(buffers) => {
                self.deliver(*buffers);
            }
            Step::Cancel(cookie) => self.cancel(u64::from(*cookie)),
            Step::Create(context) => {
                let context = u32::from(*context) % (CONTEXTS + 1);
                let status = self.ask(ControlKind::ContextCreate, context.into());
                let expected = match self.contexts.insert(context) {
                    true => Status::Ok,
                    false => Status::BadContext,
                };
                assert_eq!(status, expected);
            }
            Step::Destroy(context) => {
                let context = u32::from(*context) % (CONTEXTS + 1);
                let status = self.ask(ControlKind::ContextDestroy, context.into());
                let expected = match self.contexts.remove(&context) {
                    true => Status::Ok,
                    false => Status::BadContext,
                };
                assert_eq!(status, expected);
                self.open.retain(|_, (_, of)| *of != context);
            }
            Step::Session => self.session(),
        }
    }

    fn job<'a>(&'a self, role: Role) -> Job<'a> {
        Job {
            role,
            guest: &self.parts.guest,
            pace: &NoPace,
            status_room: 0,
        }
    }

    fn submit(&mut self, request: &[u8], cookie: u64, context: u32) {
        let job = self.job(Role::Job(0));
        let report = (self.parts.engine).submit(request, &job, &mut Workspace::default());
        assert_eq!(report.completion.cookie.get(), cookie);
        if report.status == Status::Ok {
            assert!(self.contexts.contains(&context));
            assert_eq!(self.jobs.insert(cookie, context), None, "{cookie} twice");
        } else if report.status == Status::Busy {
            assert!(self.jobs.contains_key(&cookie));
        }
    }

    fn execute_map(&self, request: &[u8]) -> Status {
        let job = self.job(Role::Mmu);
        (self.parts.engine)
            .execute_map(request, &job, &mut Workspace::default())
            .expect("nothing interrupts it")
            .status
    }

    fn change(&self, context: u8, entries: &[MapEntry]) -> Status {
        let header = MapHeader::new(
            BatchFlags::default(),
            entries.len() as u32,
            1,
            self.generation,
            u32::from(context) % CONTEXTS,
        );
        self.execute_map(&[header.as_bytes(), entries.as_bytes()].concat())
    }

    fn answer(&mut self, fault: u8, context: u8, how: u8) {
        let known = self.open.keys().nth(usize::from(fault)).copied();
        let number = known.unwrap_or(u64::from(fault));
        let context = match self.open.get(&number) {
            Some((_, of)) if context >= 16 => *of as u8,
            _ => context,
        };
        let entry = match how % 4 {
            0 => MapEntry::fail(number, Status::NoMemory),
            _ => MapEntry::resume(number),
        };
        let status = self.change(context, &[entry]);
        let context = u32::from(context) % CONTEXTS;
        let is_open = (self.open.get(&number)).is_some_and(|(_, of)| *of == context);
        if !self.contexts.contains(&context) {
            assert_eq!(status, Status::BadContext);
        } else if is_open {
            assert_eq!(status, Status::Ok);
            self.open.remove(&number);
        } else if !self.is_wild {
            assert_eq!(status, Status::BadFault);
        }
    }

    fn run_turn(&self) -> bool {
        let jobs = self.parts.engine.jobs();
        let Some(mut turn) = jobs.try_next() else {
            return false;
        };
        let memories = self.parts.engine.memories(&self.parts.guest);
        let context = Arc::clone(&turn.context);
        let step = context.section(&memories, &|| false, |section| {
            turn.work.run(&Slice {
                section,
                looks: Cell::new(0),
            })
        });
        if let Some(JobStep::Missed { wanted, .. }) = step {
            assert!(wanted > 0);
        }
        jobs.put_back(turn, step.map_or(TurnEnd::Destroyed, TurnEnd::Step));
        true
    }

    /// Delivers reports; how many.
    fn deliver(&mut self, buffers: u8) -> usize {
        let mut posted = Posted {
            left: buffers,
            reports: Vec::new(),
        };
        (self.parts.engine.jobs()).deliver(self.parts.engine.faults(), &mut posted);
        for report in &posted.reports {
            let cookie = report.cookie.get();
            let context = report.context.get();
            assert_eq!(self.jobs.get(&cookie), Some(&context), "{report:?}");
            match ReportKind::from_wire(report.kind) {
                Some(ReportKind::Fault) => {
                    let number = report.value.get();
                    assert!(report.amount.get() > 0);
                    assert_eq!(self.open.insert(number, (cookie, context)), None);
                }
                Some(ReportKind::JobEnd) => {
                    assert!(Status::from_wire(report.status).is_some());
                    self.jobs.remove(&cookie);
                    self.open.retain(|_, (of, _)| *of != cookie);
                }
                None => panic!("an unknown report: {report:?}"),
            }
        }
        posted.reports.len()
    }

    fn cancel(&mut self, cookie: u64) {
        assert_eq!(self.ask(ControlKind::JobCancel, cookie), Status::Ok);
        self.open.retain(|_, (of, _)| *of != cookie);
    }

    fn ask(&self, kind: ControlKind, argument: u64) -> Status {
        let request = ControlRequest::new(kind, 0, 5, argument, 0);
        let reply = self.parts.engine.control(request.as_bytes());
        Status::from_wire(reply.status).expect("a status")
    }

    fn session(&mut self) {
        let open = SessionRequest {
            request: ControlRequest::new(ControlKind::SessionOpen, 0, 0, 0, 0),
            key: [1; 16],
        };
        let reply = self.parts.engine.control(open.as_bytes());
        assert_eq!(reply.status, Status::Ok.to_wire());
        self.generation = reply.generation.get();
        self.contexts.clear();
        self.jobs.clear();
        self.open.clear();
    }

    /// Everything ends, once, and nothing was written that was never mapped.
    fn finish(&mut self) {
        let cookies: Vec<u64> = self.jobs.keys().copied().collect();
        for cookie in cookies {
            self.cancel(cookie);
        }
        while self.run_turn() {}
        while self.deliver(u8::MAX) > 0 {}
        assert!(self.jobs.is_empty(), "jobs without an end: {:?}", self.jobs);
        let stats = self.parts.engine.jobs().snapshot();
        assert_eq!(
            (stats.present, stats.open_faults, stats.waiting_reports),
            (0, 0, 0)
        );
        if !self.is_wild {
            let mut guard = vec![0; (PAGES * PAGE) as usize];
            (self.parts.memory)
                .read_slice(&mut guard, GuestAddress(PAGES * PAGE))
                .expect("guest memory");
            assert!(guard.iter().all(|byte| *byte == GUARD));
        }
    }
}
