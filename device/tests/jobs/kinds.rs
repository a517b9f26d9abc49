// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Each kind of job on memory that is mapped, with every byte compared.

use hmm_front_end::{DATA, end_status, pattern};
use hmm_protocol::{CopyEntry, JobFlags, JobKind, MapEntry, MapFlags, Op, Report, Status};

use crate::{
    ALL, BASE, BLOCK, CONTEXT, DEVICE, PAGE, map, map_reversed, read_reversed, start,
    write_reversed,
};

const PAGES: u64 = 20;

fn ok(report: &Report, result: u64, amount: u64) {
    assert_eq!(end_status(report), Status::Ok, "{report:?}");
    assert_eq!(report.value.get(), result);
    assert_eq!(report.amount.get(), amount);
    assert_eq!(report.address.get(), 0);
    assert_eq!(report.program_counter.get(), 0);
    assert_eq!(report.faults.get(), 0);
    assert!(report.device_ns.get() > 0);
}

#[test]
fn fill_and_copy_and_crc_across_scattered_pages() {
    let (_process, mut front_end) = start(&[]);
    map_reversed(&mut front_end, BASE, DATA, PAGES, ALL);
    let none = JobFlags::default();
    let (at, len) = (BASE + 123, 5 * PAGE + 77);
    let report = front_end.run_job(
        JobKind::Fill,
        none,
        CONTEXT,
        &[at, len, 0x0807_0605_0403_0201],
    );
    ok(&report, 0, len);
    let mut expected = vec![0; (PAGES * PAGE) as usize];
    for index in 0..len as usize {
        expected[123 + index] = (index % 8 + 1) as u8;
    }
    assert!(read_reversed(&front_end, DATA, PAGES) == expected);

    let report = front_end.run_job(
        JobKind::Copy,
        none,
        CONTEXT,
        &[BASE + 10 * PAGE + 1, at, len],
    );
    ok(&report, 0, len);
    let to = (10 * PAGE + 1) as usize;
    expected.copy_within(123..123 + len as usize, to);
    assert!(read_reversed(&front_end, DATA, PAGES) == expected);

    write_reversed(&front_end, DATA, PAGES, 2 * PAGE - 4, b"123456789");
    let crc = |before: u64, from: u64, len: u64| [BASE + 2 * PAGE - 4 + from, len, before];
    let report = front_end.run_job(JobKind::Crc32c, none, CONTEXT, &crc(0, 0, 9));
    ok(&report, 0xe306_9283, 9);
    let report = front_end.run_job(JobKind::Crc32c, none, CONTEXT, &crc(0, 0, 5));
    let report = front_end.run_job(
        JobKind::Crc32c,
        none,
        CONTEXT,
        &crc(report.value.get(), 5, 4),
    );
    ok(&report, 0xe306_9283, 4);
}

#[test]
fn a_copy_goes_from_the_guest_to_the_device_and_back() {
    let (_process, mut front_end) = start(&[]);
    map(
        &mut front_end,
        &[
            MapEntry::map(BASE, 2 * BLOCK, DATA, ALL, 21),
            MapEntry::map(BASE + 2 * BLOCK, 2 * BLOCK, BLOCK, DEVICE, 21),
        ],
    );
    let len = 2 * BLOCK - 100;
    let bytes = pattern(9, len as usize);
    front_end.guest.write(DATA + 50, &bytes);
    let device = BASE + 2 * BLOCK + 32;
    let none = JobFlags::default();
    let report = front_end.run_job(JobKind::Copy, none, CONTEXT, &[device, BASE + 50, len]);
    ok(&report, 0, len);
    // The engine finds them where the page tables say.
    front_end.guest.write(DATA, &vec![0; 2 * BLOCK as usize]);
    front_end.run(&[
        CopyEntry::new(Op::ToSystem, DATA, BLOCK, BLOCK as u32),
        CopyEntry::new(Op::ToSystem, DATA + BLOCK, 2 * BLOCK, BLOCK as u32),
    ]);
    assert!(front_end.guest.read(DATA + 32, len as usize) == bytes);
    // And a job brings them to another place of the guest.
    let report = front_end.run_job(JobKind::Copy, none, CONTEXT, &[BASE + 1, device, len]);
    ok(&report, 0, len);
    assert!(front_end.guest.read(DATA + 1, len as usize) == bytes);
}

#[test]
fn atomic_add_in_both_memories_and_both_widths() {
    let (_process, mut front_end) = start(&[]);
    map(
        &mut front_end,
        &[
            MapEntry::map(BASE, BLOCK, DATA, ALL, 21),
            MapEntry::map(BASE + BLOCK, BLOCK, 0, DEVICE, 21),
        ],
    );
    let none = JobFlags::default();
    front_end.guest.write(DATA + 8, &u64::MAX.to_le_bytes());
    let report = front_end.run_job(JobKind::AtomicAdd, none, CONTEXT, &[BASE + 8, 1000, 3, 8]);
    ok(&report, u64::MAX, 1000);
    let bytes = front_end.guest.read(DATA, 8 * 1002);
    for (index, word) in bytes.chunks_exact(8).enumerate() {
        let expected: u64 = match index {
            0 | 1001 => 0,
            1 => 2,
            _ => 3,
        };
        assert_eq!(word, expected.to_le_bytes(), "word {index}");
    }
    let on_device = [BASE + BLOCK + 4, 7, u64::from(u32::MAX), 4];
    for expected in [0, u64::from(u32::MAX)] {
        let report = front_end.run_job(JobKind::AtomicAdd, none, CONTEXT, &on_device);
        ok(&report, expected, 7);
    }
    front_end.run(&[CopyEntry::new(Op::ToSystem, DATA, 0, 4096)]);
    let minus_two = (u32::MAX - 1).to_le_bytes();
    let expected = [&[0; 4][..], &minus_two.repeat(7), &[0; 4]].concat();
    assert_eq!(front_end.guest.read(DATA, 36), expected);
}

#[test]
fn two_jobs_and_the_guest_count_together() {
    use std::sync::atomic::{AtomicU64, Ordering};

    let (_process, mut front_end) = start(&["--executors", "2"]);
    map(&mut front_end, &[MapEntry::map(BASE, PAGE, DATA, ALL, 12)]);
    let words = PAGE / 8;
    let rounds = 40;
    front_end.post_report_buffers(2 * rounds);
    for round in 0..rounds {
        for queue in [0, 1] {
            let job = front_end.job(
                JobKind::AtomicAdd,
                JobFlags::default(),
                CONTEXT,
                &[BASE, words, 1, 8],
            );
            let queue = front_end.job_queue(queue);
            assert_eq!(
                front_end.submit_job_on(queue, &job).status(),
                Status::Ok,
                "round {round}"
            );
        }
        let host = front_end.guest.host_address(DATA) as *const AtomicU64;
        // SAFETY: the address is that of a mapped, aligned word which only atomics access.
        unsafe { &*host }.fetch_add(1, Ordering::SeqCst);
    }
    for _ in 0..2 * rounds {
        assert_eq!(end_status(&front_end.report()), Status::Ok);
    }
    let bytes = front_end.guest.read(DATA, PAGE as usize);
    for (index, word) in bytes.chunks_exact(8).enumerate() {
        let guest = if index == 0 { rounds as u64 } else { 0 };
        assert_eq!(word, (2 * rounds as u64 + guest).to_le_bytes());
    }
}

#[test]
fn walk_follows_raw_pointers_and_writes_the_nodes() {
    let (_process, mut front_end) = start(&[]);
    map_reversed(&mut front_end, BASE, DATA, PAGES, ALL);
    // Nodes of 24 bytes all over the range, some across pages: next, padding, value.
    let places: Vec<u64> = (0..1000u64)
        .map(|index| index * 613 % 1000 * 80 + 4)
        .collect();
    for (index, place) in places.iter().enumerate() {
        let next = places.get(index + 1).map_or(0, |next| BASE + next);
        let node = [next.to_le_bytes(), [0xff; 8], (index as u64).to_le_bytes()].concat();
        write_reversed(&front_end, DATA, PAGES, *place, &node);
    }
    let first = BASE + places[0];
    let walk = |flags, limit, add| (JobKind::Walk, flags, CONTEXT, [first, 0, limit, 16, add]);
    let none = JobFlags::default();
    let (kind, flags, context, arguments) = walk(none, 5000, 0);
    let sum = 999 * 1000 / 2;
    ok(
        &front_end.run_job(kind, flags, context, &arguments),
        sum,
        1000,
    );
    let (kind, flags, context, arguments) = walk(JobFlags::WRITE, 5000, 10);
    ok(
        &front_end.run_job(kind, flags, context, &arguments),
        sum,
        1000,
    );
    let (kind, flags, context, arguments) = walk(none, 1000, 0);
    ok(
        &front_end.run_job(kind, flags, context, &arguments),
        sum + 10 * 1000,
        1000,
    );
    // With a limit below the length the first node that was not visited is named.
    let (kind, flags, context, arguments) = walk(none, 999, 0);
    let report = front_end.run_job(kind, flags, context, &arguments);
    assert_eq!(end_status(&report), Status::Limit);
    assert_eq!(report.address.get(), BASE + places[999]);
    assert_eq!(report.amount.get(), 999);
    assert_eq!(report.value.get(), sum + 10 * 999 - 999);
}

#[test]
fn probe_counts_pages_by_permission_and_never_faults() {
    let (_process, mut front_end) = start(&[]);
    let read_only = MapFlags::READ;
    map(
        &mut front_end,
        &[
            MapEntry::map(BASE, 3 * PAGE, DATA, ALL, 12),
            MapEntry::map(BASE + 5 * PAGE, 2 * PAGE, DATA, read_only, 12),
            MapEntry::map(BASE + BLOCK, BLOCK, 0, DEVICE, 21),
        ],
    );
    let mut count = |from: u64, pages: u64, wanted: MapFlags| {
        let arguments = [from, pages * PAGE, u64::from(wanted.0)];
        let report = front_end.run_job(JobKind::Probe, JobFlags::default(), CONTEXT, &arguments);
        assert_eq!(end_status(&report), Status::Ok);
        assert_eq!((report.amount.get(), report.faults.get()), (pages, 0));
        report.value.get()
    };
    assert_eq!(count(BASE, 1024, MapFlags::default()), 3 + 2 + 512);
    assert_eq!(count(BASE, 1024, MapFlags::READ), 3 + 2 + 512);
    assert_eq!(count(BASE, 1024, MapFlags(3)), 3 + 512);
    assert_eq!(count(BASE, 1024, MapFlags::ATOMIC), 3 + 512);
    assert_eq!(count(BASE, 1024, MapFlags::DEVICE), 512);
    assert_eq!(count(BASE + 2 * PAGE, 4, MapFlags::default()), 2);
    // The whole context: what is not mapped is skipped in large steps.
    assert_eq!(count(0, 1 << 45, MapFlags::default()), 3 + 2 + 512);
}
