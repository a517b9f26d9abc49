// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What page tables mean for jobs, which blocks of device memory they access, and a device that answers changes of page tables
//! late, never or wrongly.

use std::time::{Duration, Instant};

use hmm_front_end::{DATA, FrontEnd, Layout, Process};
use hmm_protocol::{
    BatchFlags, ControlKind, JobFlags, JobKind, MapEntry, MapFlags, Report, Status,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_vhost-user-hmm");
const CONTEXT: u32 = 1;
/// Where device memory is in the context; a multiple of 2 MiB.
const BASE: u64 = 0x7f00_0000_0000;
const PAGE: u64 = 4096;
const BLOCK: u64 = 2 << 20;
const DEVICE: MapFlags = MapFlags::ALL;
/// Blocks of device memory.
const BLOCKS: u64 = 80;

fn start() -> (Process, FrontEnd) {
    let process = Process::start(PROGRAM, &["--memory", "160M"]);
    let mut front_end = FrontEnd::start(&process.socket(), 1, &Layout::default());
    front_end.open();
    let create = ControlKind::ContextCreate;
    assert_eq!(front_end.ask(create, u64::from(CONTEXT), 0), Status::Ok);
    (process, front_end)
}

fn change(front_end: &mut FrontEnd, entries: &[MapEntry]) {
    let answer = front_end.change(CONTEXT, entries);
    assert_eq!(answer.status(), Status::Ok, "{entries:?}");
}

/// Maps all device memory at [`BASE`] by huge pages.
fn map_everything(front_end: &mut FrontEnd) {
    let entry = MapEntry::map(BASE, BLOCKS * BLOCK, 0, DEVICE, 21);
    change(front_end, &[entry]);
}

/// Runs a job without page faults.
fn run(front_end: &mut FrontEnd, kind: JobKind, arguments: &[u64]) -> Report {
    let flags = match kind {
        JobKind::Probe => JobFlags::default(),
        _ => JobFlags::NO_FAULT,
    };
    front_end.run_job(kind, flags, CONTEXT, arguments)
}

fn status(report: &Report) -> Status {
    Status::from_wire(report.status).expect("a status of this version")
}

/// Pages from [`BASE`] on that are mapped with `flags`.
fn probe(front_end: &mut FrontEnd, flags: MapFlags) -> u64 {
    let arguments = [BASE, BLOCKS * BLOCK, u64::from(flags.0)];
    let report = run(front_end, JobKind::Probe, &arguments);
    assert_eq!(status(&report), Status::Ok);
    report.value.get()
}

#[test]
fn a_part_of_a_huge_page_changes_alone() {
    let (_process, mut front_end) = start();
    map_everything(&mut front_end);
    let all = BLOCKS * BLOCK / PAGE;
    let read = MapFlags::READ;
    let write = MapFlags(MapFlags::READ.0 | MapFlags::WRITE.0);
    assert_eq!(probe(&mut front_end, DEVICE), all);
    let changes = [
        MapEntry::unmap(BASE + 3 * PAGE, 2 * PAGE),
        MapEntry::protect(BASE + 10 * PAGE, PAGE, read),
        MapEntry::protect(BASE + BLOCK - PAGE, 2 * PAGE, write),
        MapEntry::map(BASE + 20 * PAGE, PAGE, DATA, read, 12),
    ];
    change(&mut front_end, &changes);
    assert_eq!(probe(&mut front_end, read), all - 2);
    assert_eq!(probe(&mut front_end, write), all - 4);
    assert_eq!(probe(&mut front_end, DEVICE), all - 6);
    for (start, at, expected) in [
        (BASE, BASE + 3 * PAGE, Status::Unmapped),
        (BASE + 5 * PAGE, BASE + 10 * PAGE, Status::Forbidden),
        (BASE + 11 * PAGE, BASE + 20 * PAGE, Status::Forbidden),
    ] {
        let report = run(&mut front_end, JobKind::Fill, &[start + 8, BLOCK, 1]);
        assert_eq!(status(&report), expected);
        assert_eq!(report.address.get(), at);
        assert_eq!(report.amount.get(), at - start - 8, "the rest is written");
    }
    // To read is permitted there, and the page that was put in between is the guest's.
    front_end.guest.write(DATA, &[0xab; PAGE as usize]);
    let report = run(
        &mut front_end,
        JobKind::Crc32c,
        &[BASE + 20 * PAGE, PAGE, 0],
    );
    assert_eq!(status(&report), Status::Ok);
    let before = report.value.get();
    front_end.guest.write(DATA, &[0xac; PAGE as usize]);
    let report = run(
        &mut front_end,
        JobKind::Crc32c,
        &[BASE + 20 * PAGE, PAGE, 0],
    );
    assert_ne!(report.value.get(), before);
    let add = [BASE + BLOCK, 1, 1, 8];
    let report = run(&mut front_end, JobKind::AtomicAdd, &add);
    assert_eq!(status(&report), Status::Forbidden);
    assert_eq!(report.address.get(), BASE + BLOCK);
    // A huge page in the place of small ones.
    change(
        &mut front_end,
        &[MapEntry::map(BASE, 2 * BLOCK, 0, DEVICE, 21)],
    );
    assert_eq!(probe(&mut front_end, DEVICE), all);
}

#[test]
fn access_bits_tell_which_blocks_jobs_used() {
    let (_process, mut front_end) = start();
    map_everything(&mut front_end);
    let at = |block: u64| BASE + block * BLOCK;
    // Probing accesses nothing.
    probe(&mut front_end, DEVICE);
    assert_eq!(front_end.access_bits(0, 128, false), Ok(vec![0; 32]));
    for (kind, arguments) in [
        (JobKind::Fill, [at(3) - 8, 16, 7, 0]),
        (JobKind::Copy, [at(70), at(9), 4096, 0]),
        (JobKind::Crc32c, [at(63), BLOCK + 1, 0, 0]),
        (JobKind::AtomicAdd, [at(5), 2, 1, 8]),
    ] {
        let report = run(&mut front_end, kind, &arguments);
        assert_eq!(status(&report), Status::Ok);
    }
    let bits = |blocks: &[usize]| {
        let mut bitmap = vec![0u8; 16];
        for block in blocks {
            bitmap[block / 8] |= 1 << (block % 8);
        }
        bitmap
    };
    let expected = [bits(&[2, 3, 5, 9, 63, 64, 70]), bits(&[2, 3, 5, 70])].concat();
    assert_eq!(front_end.access_bits(0, 128, false), Ok(expected.clone()));
    assert_eq!(front_end.access_bits(0, 128, true), Ok(expected));
    assert_eq!(front_end.access_bits(0, 128, true), Ok(vec![0; 32]));
    // What is cleared is set again, and the first block of an answer is any.
    run(&mut front_end, JobKind::Fill, &[at(69), 8, 1]);
    let answer = front_end.access_bits(68, 64, false).expect("bits");
    assert_eq!(answer, [[2, 0, 0, 0, 0, 0, 0, 0]; 2].concat());
    // Another session begins with none.
    front_end.open();
    assert_eq!(front_end.access_bits(0, 128, false), Ok(vec![0; 32]));
}

#[test]
fn statistics_tell_of_contexts_and_their_changes() {
    let (process, mut front_end) = start();
    map_everything(&mut front_end);
    change(&mut front_end, &[MapEntry::unmap(BASE, PAGE)]);
    assert_eq!(
        front_end.change(CONTEXT, &[MapEntry::resume(9)]).status(),
        Status::BadFault
    );
    let stats = &process.command_ok(r#"{"command":"stats"}"#)["stats"];
    assert_eq!(stats["contexts"]["present"], 1);
    assert_eq!(stats["contexts"]["table_bytes"], 56 * BLOCKS + 4096);
    let mmu = &stats["queues"]["mmu"];
    assert_eq!(mmu["results"]["ok"], 2);
    assert_eq!(mmu["results"]["bad-fault"], 1);
    assert_eq!(mmu["ops"]["map"]["entries_ok"], 1);
    assert_eq!(mmu["ops"]["map"]["bytes"], BLOCKS * BLOCK);
    assert_eq!(mmu["ops"]["unmap"]["entries_ok"], 1);
    assert_eq!(mmu["ops"]["resume"]["entries_failed"], 1);
    assert_eq!(mmu["copy"]["count"], 3);
    let destroy = ControlKind::ContextDestroy;
    assert_eq!(front_end.ask(destroy, u64::from(CONTEXT), 0), Status::Ok);
    let stats = &process.command_ok(r#"{"command":"stats"}"#)["stats"];
    assert_eq!(stats["contexts"]["present"], 0);
    assert_eq!(stats["contexts"]["table_bytes"], 0);
}

fn add(process: &Process, fault: &str) {
    process.command_ok(&format!(r#"{{"command":"fault-add","fault":{fault}}}"#));
}

#[test]
fn an_invalidation_is_answered_wrongly() {
    let (process, mut front_end) = start();
    map_everything(&mut front_end);
    let all = BLOCKS * BLOCK / PAGE;
    let unmap = MapEntry::unmap(BASE, PAGE);
    add(
        &process,
        r#"{"action":"fail","status":"internal","queue":"mmu","op":"unmap","on":"batch","nth":1}"#,
    );
    assert_eq!(
        front_end.change(CONTEXT, &[unmap]).status(),
        Status::Internal
    );
    assert_eq!(probe(&mut front_end, DEVICE), all, "it was not executed");
    add(
        &process,
        r#"{"action":"fail","status":"busy","queue":"mmu","op":"unmap","nth":2}"#,
    );
    let answer = front_end.change(CONTEXT, &[unmap, unmap, unmap]);
    let entries = [0, 1, 2].map(|index| answer.entry(index));
    assert_eq!(entries, [Status::Ok, Status::Busy, Status::NotAttempted]);
    assert_eq!(probe(&mut front_end, DEVICE), all - 1);
    add(&process, r#"{"action":"cookie","queue":"mmu","nth":1}"#);
    let request = front_end.map_batch(BatchFlags::default(), CONTEXT, &[unmap]);
    let sent = u64::from_le_bytes(request[8..16].try_into().expect("8 bytes"));
    let answer = front_end.execute_on(front_end.mmu_queue(), &request);
    assert_eq!(answer.completion.cookie.get(), !sent);
    // Copies go on as if nothing were.
    let fill = hmm_protocol::CopyEntry::new(hmm_protocol::Op::Fill, 0, 0, 8);
    assert_eq!(front_end.run(&[fill]).status(), Status::Ok);
}

#[test]
fn an_invalidation_is_answered_late_or_never() {
    let (process, mut front_end) = start();
    map_everything(&mut front_end);
    let all = BLOCKS * BLOCK / PAGE;
    let unmap = |page: u64| [MapEntry::unmap(BASE + page * PAGE, PAGE)];
    add(
        &process,
        r#"{"action":"delay","microseconds":200000,"queue":"mmu","nth":1}"#,
    );
    let begin = Instant::now();
    change(&mut front_end, &unmap(0));
    assert!(begin.elapsed() >= Duration::from_millis(200));
    add(&process, r#"{"action":"drop","queue":"mmu","nth":1}"#);
    let queue = front_end.mmu_queue();
    let lost = front_end.map_batch(BatchFlags::default(), CONTEXT, &unmap(1));
    let lost = front_end.submit(queue, &lost, 0);
    let kept = front_end.map_batch(BatchFlags::default(), CONTEXT, &unmap(2));
    let kept = front_end.submit(queue, &kept, 0);
    front_end.rings[usize::from(queue)].kick();
    assert_eq!(front_end.answer(queue, kept, 0).status(), Status::Ok);
    assert_eq!(front_end.guest.load_u8(lost), 0);
    assert_eq!(probe(&mut front_end, DEVICE), all - 3, "it was executed");
    // A queue that is not served keeps its batch until it is.
    add(&process, r#"{"action":"stall","queue":"mmu"}"#);
    let stalled = front_end.map_batch(BatchFlags::default(), CONTEXT, &unmap(3));
    let stalled = front_end.submit(queue, &stalled, 0);
    front_end.rings[usize::from(queue)].kick();
    assert_eq!(probe(&mut front_end, DEVICE), all - 3);
    process.command_ok(r#"{"command":"fault-clear"}"#);
    assert_eq!(front_end.answer(queue, stalled, 0).status(), Status::Ok);
    assert_eq!(probe(&mut front_end, DEVICE), all - 4);
}

/// A batch that takes long is put back when the front end wants its worker, and goes on: nothing is done twice, nothing is
/// left out.
#[test]
fn a_long_batch_lets_changes_of_the_memory_table_through() {
    let (_process, mut front_end) = start();
    // Each entry of the batch maps 32768 small pages.
    let queue = front_end.mmu_queue();
    let entries: Vec<MapEntry> = (0..1000)
        .map(|index| MapEntry::map(BASE + index * 64 * PAGE, 128 << 20, 0, DEVICE, 12))
        .collect();
    let request = front_end.map_batch(BatchFlags::STATUS_ARRAY, CONTEXT, &entries);
    let record = front_end.submit(queue, &request, 1000);
    front_end.rings[usize::from(queue)].kick();
    let region = (front_end.guest.regions())
        .into_iter()
        .max_by_key(|region| region.guest_phys_addr)
        .expect("a region");
    let mut through = 0;
    while front_end.guest.load_u8(record) == 0 {
        use vhost::vhost_user::VhostUserFrontend;
        front_end
            .frontend
            .remove_mem_region(&region)
            .expect("removed");
        front_end.frontend.add_mem_region(&region).expect("added");
        through += 1;
    }
    let answer = front_end.answer(queue, record, 1000);
    assert_eq!(answer.status(), Status::Ok);
    assert_eq!(answer.completion.entries_ok.get(), 1000);
    assert!(
        through > 1,
        "the memory table changed only behind the batch"
    );
    let all = probe(&mut front_end, DEVICE);
    assert_eq!(all, BLOCKS * BLOCK / PAGE, "up to where the probe looks");
}
