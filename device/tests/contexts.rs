// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Contexts and batches of the MMU queue, as a driver uses them.

use hmm_front_end::{DATA, FrontEnd, Layout, MOST_QUEUES, Process};
use hmm_protocol::{
    BULK_QUEUE_FIRST, BatchFlags, ControlKind, CopyEntry, Features, MapEntry, MapFlags, Op, Status,
};
use vhost::vhost_user::Frontend;

const PROGRAM: &str = env!("CARGO_BIN_EXE_vhost-user-hmm");
const ALL: MapFlags = MapFlags::PERMISSIONS;
const DEVICE: MapFlags = MapFlags(MapFlags::PERMISSIONS.0 | MapFlags::DEVICE.0);

fn start(more: &[&str]) -> (Process, FrontEnd) {
    let process = Process::start(PROGRAM, &[&["--memory", "16M"], more].concat());
    let mut front_end = FrontEnd::start(&process.socket(), 1, &Layout::default());
    front_end.open();
    (process, front_end)
}

#[test]
fn a_thousand_contexts_live_at_once() {
    let (_process, mut front_end) = start(&["--max-contexts", "1024"]);
    assert_eq!(front_end.config().max_contexts.get(), 1024);
    let create = ControlKind::ContextCreate;
    let destroy = ControlKind::ContextDestroy;
    for context in 0..1024 {
        assert_eq!(front_end.ask(create, context, 0), Status::Ok);
        let entry = MapEntry::map(context << 21, 2 << 20, 0, DEVICE, 21);
        let answer = front_end.change(context as u32, &[entry]);
        assert_eq!(answer.status(), Status::Ok);
    }
    for wrong in [1024, 1023, u64::MAX, 1 << 32] {
        assert_eq!(front_end.ask(create, wrong, 0), Status::BadContext);
    }
    for context in (0..1024).rev() {
        assert_eq!(front_end.ask(destroy, context, 0), Status::Ok);
        assert_eq!(front_end.ask(destroy, context, 0), Status::BadContext);
    }
    assert_eq!(front_end.ask(create, 7, 0), Status::Ok);
    assert_eq!(front_end.ask(destroy, 7, 1), Status::ReservedNonZero);
}

#[test]
fn contexts_end_with_their_session() {
    let (_process, mut front_end) = start(&[]);
    let create = ControlKind::ContextCreate;
    let unmap = [MapEntry::unmap(0, 4096)];
    assert_eq!(front_end.ask(create, 3, 0), Status::Ok);
    assert_eq!(front_end.change(3, &unmap).status(), Status::Ok);
    let before = front_end.generation;
    front_end.open();
    assert_eq!(front_end.change(3, &unmap).status(), Status::BadContext);
    assert_eq!(front_end.ask(create, 3, 0), Status::Ok);
    let after = std::mem::replace(&mut front_end.generation, before);
    assert_eq!(
        front_end.change(3, &unmap).status(),
        Status::StaleGeneration
    );
    front_end.generation = after;
    front_end.reboot();
    assert_eq!(front_end.change(3, &unmap).status(), Status::NoSession);
    assert_eq!(front_end.ask(create, 3, 0), Status::NoSession);
    assert_eq!(front_end.access_bits(0, 64, false), Err(Status::NoSession));
    assert_eq!(front_end.adopt(after), Status::Ok);
    assert_eq!(front_end.change(3, &unmap).status(), Status::BadContext);
}

#[test]
fn the_first_entry_that_fails_ends_the_batch() {
    let (_process, mut front_end) = start(&[]);
    assert_eq!(front_end.ask(ControlKind::ContextCreate, 0, 0), Status::Ok);
    let good = MapEntry::map(0, 8192, DATA, ALL, 12);
    let beyond = front_end
        .guest
        .regions()
        .iter()
        .map(|region| region.guest_phys_addr + region.memory_size)
        .max()
        .expect("a region");
    for (bad, status) in [
        (
            MapEntry::map(0, 8192, beyond - 4096, ALL, 12),
            Status::BadGuestAddress,
        ),
        (
            MapEntry::map(0, 8192, u64::MAX - 8191, ALL, 12),
            Status::BadGuestAddress,
        ),
        (
            MapEntry::map(0, 4096, 16 << 20, DEVICE, 12),
            Status::BadDeviceRange,
        ),
        (
            MapEntry::map(4096, 2 << 20, 0, DEVICE, 21),
            Status::BadAddress,
        ),
        (
            MapEntry::map(0, 2 << 20, 4096, DEVICE, 21),
            Status::BadDeviceRange,
        ),
        (MapEntry::map(0, 4096, 0, DEVICE, 13), Status::BadLength),
        (
            MapEntry::map((1 << 57) - 4096, 8192, 0, DEVICE, 12),
            Status::BadAddress,
        ),
        (
            MapEntry::map(0, 4096, DATA, MapFlags::WRITE, 12),
            Status::BadFlags,
        ),
        (MapEntry::unmap(0, 0), Status::BadAddress),
        (MapEntry::unmap(1 << 57, 4096), Status::BadAddress),
        (MapEntry::protect(1, 4096, ALL), Status::BadAddress),
        (
            MapEntry::protect(0, 4096, MapFlags::DEVICE),
            Status::BadFlags,
        ),
        (MapEntry::resume(1), Status::BadFault),
        (MapEntry::fail(1, Status::Unmapped), Status::BadFault),
        (MapEntry::fail(1, Status::Ok), Status::BadOp),
    ] {
        let answer = front_end.change(0, &[good, bad, good]);
        assert_eq!(answer.status(), status, "{bad:?}");
        let entries = [0, 1, 2].map(|index| answer.entry(index));
        assert_eq!(
            entries,
            [Status::Ok, status, Status::NotAttempted],
            "{bad:?}"
        );
        assert_eq!(answer.completion.entries_ok.get(), 1);
        assert_eq!(answer.completion.first_error.get(), 1);
    }
}

#[test]
fn batches_are_checked_as_a_whole() {
    let (_process, mut front_end) = start(&[]);
    assert_eq!(front_end.ask(ControlKind::ContextCreate, 0, 0), Status::Ok);
    let entry = MapEntry::unmap(0, 4096);
    let queue = front_end.mmu_queue();
    let max = front_end.config().max_map_entries.get() as usize;
    let most = vec![entry; max];
    assert_eq!(front_end.change(0, &most).status(), Status::Ok);
    let more = vec![entry; max + 1];
    assert_eq!(front_end.change(0, &more).status(), Status::BadCount);
    assert_eq!(front_end.change(1, &[entry]).status(), Status::BadContext);
    let batch = front_end.map_batch(BatchFlags::default(), 0, &[entry]);
    for (at, value, status) in [
        (0, 1, Status::BadOp),
        (1, 1, Status::BadFlags),
        (2, 31, Status::BadLength),
        (4, 0, Status::BadCount),
        (4, 2, Status::BadLength),
        (28, 1, Status::ReservedNonZero),
    ] {
        let mut batch = batch.clone();
        batch[at] = value;
        assert_eq!(
            front_end.execute_on(queue, &batch).status(),
            status,
            "byte {at}"
        );
    }
    // A fence is for copies.
    let fence = front_end.map_batch(BatchFlags::FENCE, 0, &[entry]);
    assert_eq!(
        front_end.execute_on(queue, &fence).status(),
        Status::BadFlags
    );
    // Each queue has its own kind of batch.
    let copy = front_end.entries(BatchFlags::default(), &[CopyEntry::new(Op::Nop, 0, 0, 0)]);
    assert_eq!(front_end.execute_on(queue, &copy).status(), Status::BadOp);
    assert_eq!(
        front_end.execute_on(BULK_QUEUE_FIRST, &batch).status(),
        Status::BadOp
    );
}

#[test]
fn page_tables_have_a_limit_and_an_unmap_gives_back() {
    // 56 bytes a granule, and 4096 more for its small pages.
    let (_process, mut front_end) = start(&["--page-tables", "12500"]);
    for context in 0..2 {
        assert_eq!(
            front_end.ask(ControlKind::ContextCreate, context, 0),
            Status::Ok
        );
    }
    let small = |granule: u64| MapEntry::map(granule << 21, 4096, 0, DEVICE, 12);
    let answer = front_end.change(0, &[small(0), small(1), small(2), small(3)]);
    assert_eq!(answer.status(), Status::Busy);
    assert_eq!(answer.completion.entries_ok.get(), 3);
    assert_eq!(front_end.change(1, &[small(0)]).status(), Status::Busy);
    let unmap = MapEntry::unmap(0, 1 << 57);
    assert_eq!(front_end.change(0, &[unmap]).status(), Status::Ok);
    assert_eq!(
        front_end
            .change(1, &[small(0), small(1), small(2)])
            .status(),
        Status::Ok
    );
    assert_eq!(front_end.ask(ControlKind::ContextDestroy, 1, 0), Status::Ok);
    assert_eq!(
        front_end
            .change(0, &[small(0), small(1), small(2)])
            .status(),
        Status::Ok
    );
}

#[test]
fn access_bits_of_a_device_without_jobs_are_clear() {
    let (_process, mut front_end) = start(&[]);
    assert_eq!(front_end.access_bits(0, 64, true), Ok(vec![0; 16]));
    assert_eq!(front_end.access_bits(7, 128, false), Ok(vec![0; 32]));
    for (first, blocks) in [(8, 64), (0, 0), (0, 63), (0, 1 << 16)] {
        let answer = front_end.access_bits(first, blocks, false);
        assert_eq!(answer, Err(Status::BadDeviceRange), "{first} {blocks}");
    }
}

/// A driver of wire format 1.0 knows neither the features nor the queues.
#[test]
fn a_driver_of_version_1_0_works_as_before() {
    let process = Process::start(PROGRAM, &["--memory", "16M"]);
    let frontend = Frontend::connect(process.socket(), MOST_QUEUES).expect("the device accepts");
    let new = Features::CONTEXTS.0 | Features::PROGRAMS.0 | Features::ACCESS_BITS.0;
    let mut front_end = FrontEnd::start_on(frontend, 1, &Layout::default(), !new);
    assert_eq!(front_end.rings.len(), 4);
    let config = front_end.config();
    assert_eq!(config.validate_jobs(Features(!new)), Ok(None));
    front_end.open();
    let round = [
        CopyEntry::new(Op::ToDevice, DATA, 0, 4096),
        CopyEntry::new(Op::ToSystem, DATA + 4096, 0, 4096),
    ];
    front_end.guest.write(DATA, &[7; 4096]);
    let fence = front_end.entries(
        BatchFlags(BatchFlags::FENCE.0 | BatchFlags::ORDERED.0),
        &round,
    );
    assert_eq!(front_end.execute(&fence).status(), Status::Ok);
    assert_eq!(front_end.guest.read(DATA + 4096, 4096), [7; 4096]);
    for kind in [
        ControlKind::ContextCreate,
        ControlKind::ContextDestroy,
        ControlKind::JobCancel,
    ] {
        assert_eq!(front_end.ask(kind, 0, 0), Status::BadOp);
    }
    assert_eq!(front_end.access_bits(0, 64, false), Err(Status::BadOp));
}

#[test]
fn without_job_queues_there_are_no_contexts() {
    let (_process, mut front_end) = start(&["--job-queues", "0"]);
    assert_eq!(front_end.rings.len(), 4);
    let config = front_end.config();
    assert_eq!(config.job_queues.get(), 0);
    assert_eq!(config.max_contexts.get(), 0);
    assert_eq!(
        front_end.ask(ControlKind::ContextCreate, 0, 0),
        Status::BadOp
    );
}
