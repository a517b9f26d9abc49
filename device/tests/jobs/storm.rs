// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A storm: jobs on a range whose pages move between the guest's memory and the device's all the time, as a driver migrates
//! them: unmapped, copied, and mapped again at the next fault. Every byte is checked at the end.

use std::collections::{BTreeMap, VecDeque};

use hmm_front_end::{DATA, FrontEnd, end_status, pattern};
use hmm_protocol::{
    BatchFlags, CopyEntry, Job, JobFlags, JobKind, MapEntry, Op, Report, ReportKind, Status,
};

use crate::{ALL, BASE, BLOCK, CONTEXT, DEVICE, PAGE, map, start};

/// Pages of the range that jobs work on.
const PAGES: u64 = 24;
/// Jobs that are in flight at a time.
const IN_FLIGHT: usize = 16;

/// Where the range is, and what should be in it.
struct Range {
    /// Whether a page is on the device. The guest's page p is at `DATA` + p, the device's at offset p.
    on_device: Vec<bool>,
    mapped: Vec<bool>,
    expected: Vec<u8>,
    random: u64,
}

impl Range {
    fn chance(&mut self, of: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % of
    }

    /// Unmaps a page, moves it to the other memory and destroys what it leaves behind.
    fn migrate(&mut self, front_end: &mut FrontEnd, page: u64) {
        map(front_end, &[MapEntry::unmap(BASE + page * PAGE, PAGE)]);
        self.mapped[page as usize] = false;
        let (guest, device) = (DATA + page * PAGE, page * PAGE);
        let on_device = &mut self.on_device[page as usize];
        let entries = match *on_device {
            true => vec![
                CopyEntry::new(Op::ToSystem, guest, device, PAGE as u32),
                CopyEntry::new(Op::Fill, 0xdead, device, PAGE as u32),
            ],
            false => vec![CopyEntry::new(Op::ToDevice, guest, device, PAGE as u32)],
        };
        let request = front_end.entries(BatchFlags::ORDERED, &entries);
        assert_eq!(front_end.execute(&request).status(), Status::Ok);
        if !*on_device {
            front_end.guest.write(guest, &[0x66; PAGE as usize]);
        }
        *on_device = !*on_device;
    }

    fn mapping(&mut self, page: u64) -> MapEntry {
        let at = BASE + page * PAGE;
        self.mapped[page as usize] = true;
        match self.on_device[page as usize] {
            true => MapEntry::map(at, PAGE, page * PAGE, DEVICE, 12),
            false => MapEntry::map(at, PAGE, DATA + page * PAGE, ALL, 12),
        }
    }

    /// A job on a part of the range that no other job has, and what it will do to the bytes there.
    fn job(&mut self, front_end: &FrontEnd, part: u64) -> (Job, Option<u64>) {
        let len = PAGES / IN_FLIGHT as u64 * PAGE + PAGE / 2;
        let start = part * len;
        let bytes = start as usize..(start + len) as usize;
        let seed = self.random;
        let none = JobFlags::default();
        let at = BASE + start;
        match self.chance(4) {
            0 => {
                for (index, byte) in self.expected[bytes].iter_mut().enumerate() {
                    *byte = seed.to_le_bytes()[index % 8];
                }
                let job = front_end.job(JobKind::Fill, none, CONTEXT, &[at, len, seed]);
                (job, Some(0))
            }
            1 => {
                let half = (len / 2) as usize;
                let from = bytes.start;
                self.expected.copy_within(from..from + half, from + half);
                let arguments = [at + len / 2, at, len / 2];
                (
                    front_end.job(JobKind::Copy, none, CONTEXT, &arguments),
                    Some(0),
                )
            }
            2 => {
                let crc = crc32c(&self.expected[bytes]);
                let job = front_end.job(JobKind::Crc32c, none, CONTEXT, &[at, len, 0]);
                (job, Some(crc.into()))
            }
            _ => {
                for word in self.expected[bytes].chunks_exact_mut(8) {
                    let value = u64::from_le_bytes(word.try_into().expect("8 bytes"));
                    word.copy_from_slice(&value.wrapping_add(seed).to_le_bytes());
                }
                let arguments = [at, len / 8, seed, 8];
                (
                    front_end.job(JobKind::AtomicAdd, none, CONTEXT, &arguments),
                    None,
                )
            }
        }
    }
}

fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 }
        })
    })
}

#[test]
fn jobs_on_pages_that_move_do_everything_once() {
    let (process, mut front_end) = start(&["--executors", "2", "--job-queues", "2"]);
    // Each job has a page and a half, so neighbours share pages.
    let bytes = ((PAGES / IN_FLIGHT as u64 * PAGE + PAGE / 2) * IN_FLIGHT as u64) as usize;
    assert_eq!(bytes as u64, PAGES * PAGE);
    let mut range = Range {
        on_device: vec![false; PAGES as usize],
        mapped: vec![false; PAGES as usize],
        expected: pattern(11, bytes),
        random: 0x1234_5678_9abc_def1,
    };
    front_end.guest.write(DATA, &range.expected);
    front_end.post_report_buffers(64);
    let rounds = 600;
    let mut free: VecDeque<u64> = (0..IN_FLIGHT as u64).collect();
    let mut running: BTreeMap<u64, (u64, Option<u64>)> = BTreeMap::new();
    let (mut started, mut ended, mut faults, mut moves) = (0, 0, 0u64, 0);
    while ended < rounds {
        if started < rounds
            && let Some(part) = free.pop_front()
        {
            let (job, result) = range.job(&front_end, part);
            running.insert(job.cookie.get(), (part, result));
            let queue = front_end.job_queue((started % 2) as u16);
            let answer = front_end.submit_job_on(queue, &job);
            assert_eq!(answer.status(), Status::Ok);
            started += 1;
        }
        let page = range.chance(PAGES);
        if range.chance(3) == 0 {
            range.migrate(&mut front_end, page);
            moves += 1;
        }
        while let Some(report) = front_end.poll_report() {
            front_end.post_report_buffers(1);
            if report.kind == ReportKind::Fault as u8 {
                faults += 1;
                answer(&mut front_end, &mut range, &report);
                continue;
            }
            assert_eq!(end_status(&report), Status::Ok, "{report:?}");
            let (part, result) = running
                .remove(&report.cookie.get())
                .expect("a job that runs");
            assert!(
                result.is_none_or(|result| result == report.value.get()),
                "{report:?}"
            );
            free.push_back(part);
            ended += 1;
        }
    }
    for page in 0..PAGES {
        if range.on_device[page as usize] {
            range.migrate(&mut front_end, page);
        }
    }
    assert!(front_end.guest.read(DATA, bytes) == range.expected);
    assert!(
        faults > 100 && moves > 100,
        "{faults} faults, {moves} moves"
    );
    let stats = process.command_ok(r#"{"command":"stats"}"#);
    assert_eq!(stats["stats"]["jobs"]["ends"]["ok"], rounds);
    assert_eq!(stats["stats"]["jobs"]["faults"], faults);
    const { assert!(PAGES * PAGE <= BLOCK) };
}

/// What a driver does: maps the page where it is and lets the job go on, in one batch.
fn answer(front_end: &mut FrontEnd, range: &mut Range, fault: &Report) {
    let page = (fault.address.get() - BASE) / PAGE;
    let entries = [range.mapping(page), MapEntry::resume(fault.value.get())];
    map(front_end, &entries);
}
