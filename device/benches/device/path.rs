// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The whole path: a front end that keeps some batches in flight, and the real process behind it.

use std::time::{Duration, Instant};

use hmm_front_end::{FrontEnd, Layout, Process};
use hmm_protocol::BULK_QUEUE_FIRST;

use crate::{
    baseline::Baseline,
    load::{Batch, GUEST_START},
};

/// Requests begin here in the guest's memory, records at the end of their area.
const AREA: u64 = 8 << 20;
const AREA_END: u64 = 64 << 20;
const RECORD_BYTES: u64 = 64;

/// The device that is measured.
pub(crate) const DEVICE: &str = env!("CARGO_BIN_EXE_vhost-user-hmm");

/// A device with a front end.
pub(crate) struct Path {
    pub(crate) front_end: FrontEnd,
    pub(crate) baseline: Baseline,
    process: Process,
}

impl Path {
    /// Starts a device with `footprint` bytes of touched memory and these arguments beside.
    pub(crate) fn start(footprint: u64, bulk_queues: u16, arguments: &[&str]) -> Self {
        Self::start_program(DEVICE, footprint, bulk_queues, arguments)
    }

    /// The same with another program, for instance the device of an earlier version.
    pub(crate) fn start_program(
        program: &str,
        footprint: u64,
        bulk_queues: u16,
        arguments: &[&str],
    ) -> Self {
        let memory = footprint.to_string();
        let queues = bulk_queues.to_string();
        // Without a sandbox: a confined process does not let its user see its descriptors, and memcpy needs its memory.
        let common = [
            "--memory",
            &memory,
            "--prefault",
            "--bulk-queues",
            &queues,
            "--seccomp",
            "off",
            "--landlock",
            "off",
        ];
        let process = Process::start(program, &[&common, arguments].concat());
        let layout = Layout::flat((GUEST_START + footprint) as usize);
        let mut front_end = FrontEnd::start(&process.socket(), bulk_queues, &layout);
        front_end.open();
        let start = front_end.guest.host_address(GUEST_START) as *mut u8;
        // SAFETY: the region has GUEST_START + footprint bytes, and no batch runs yet.
        unsafe { std::ptr::write_bytes(start, 2, footprint as usize) };
        let baseline = Baseline::of(process.pid(), footprint);
        Self {
            front_end,
            baseline,
            process,
        }
    }

    /// The device's process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Bytes of the device's memory that huge pages map in the device.
    pub(crate) fn huge_bytes(&self) -> u64 {
        let info = self.process.command_ok(r#"{"command":"info"}"#);
        info["backing"]["huge_bytes"].as_u64().unwrap_or(0)
    }

    /// Puts the requests of `batches` into the guest's memory, one after the other.
    pub(crate) fn prepare(&self, batches: &[Batch]) -> Vec<Prepared> {
        let mut at = AREA;
        batches
            .iter()
            .map(|batch| {
                let request = batch.request(self.front_end.generation);
                let len = request.len() as u32;
                self.front_end.guest.write(at, &request);
                let record = (at + u64::from(len)).next_multiple_of(64);
                let prepared = Prepared {
                    request: (at, len),
                    record,
                };
                at = record + RECORD_BYTES;
                assert!(at <= AREA_END, "too many batches for their area");
                prepared
            })
            .collect()
    }

    /// Runs all batches at the device's own pace, on the first `queues` bulk queues, asleep meanwhile. Returns the time
    /// that passed and the processor time that the device spent, which does not grow when others want the processors.
    pub(crate) fn run_asleep(&mut self, batches: &[Prepared], queues: u16) -> (Duration, Duration) {
        let started = Instant::now();
        let before = self.processor_time();
        let guest = &self.front_end.guest;
        for round in batches.chunks(64 * usize::from(queues)) {
            for (lane, chunk) in (BULK_QUEUE_FIRST..).zip(round.chunks(64)) {
                let ring = &mut self.front_end.rings[usize::from(lane)];
                let kick_from = ring.next_avail();
                for batch in chunk {
                    guest.write(batch.record, &[0; 32]);
                    ring.submit(guest, &[batch.request], &[(batch.record, 32)]);
                }
                ring.kick_if_wanted(guest, kick_from);
            }
            for lane in (BULK_QUEUE_FIRST..).take(usize::from(queues)) {
                let ring = &mut self.front_end.rings[usize::from(lane)];
                while ring.in_flight() > 0 {
                    ring.wait(guest);
                }
            }
            for batch in round {
                assert_eq!(guest.load_u8(batch.record), 1, "a batch failed");
            }
        }
        let cost = self.processor_time().saturating_sub(before);
        (started.elapsed(), cost)
    }

    /// Processor time of all threads of the device.
    pub(crate) fn processor_time(&self) -> Duration {
        let tasks = format!("/proc/{}/task", self.process.pid());
        let nanoseconds = std::fs::read_dir(tasks)
            .expect("the device's threads")
            .filter_map(|task| {
                // A thread may have ended meanwhile; none that works does.
                let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
                text.split(' ').next()?.parse::<u64>().ok()
            })
            .sum();
        Duration::from_nanos(nanoseconds)
    }

    /// Runs all batches with up to `depth` in flight on each of the first `queues` bulk queues and returns the time.
    pub(crate) fn run(&mut self, batches: &[Prepared], depth: usize, queues: u16) -> Duration {
        let guest = &self.front_end.guest;
        for batch in batches {
            guest.write(batch.record, &[0; 32]);
        }
        let mut lanes: Vec<Lane> = (0..queues)
            .map(|lane| Lane {
                ring: usize::from(BULK_QUEUE_FIRST + lane),
                batches: batches
                    .iter()
                    .skip(usize::from(lane))
                    .step_by(usize::from(queues))
                    .copied()
                    .collect(),
                sent: 0,
                done: 0,
            })
            .collect();
        let started = Instant::now();
        loop {
            let mut busy = false;
            for lane in &mut lanes {
                let ring = &mut self.front_end.rings[lane.ring];
                if lane.sent < lane.batches.len() && lane.sent - lane.done < depth {
                    let before = ring.next_avail();
                    let batch = lane.batches[lane.sent];
                    ring.submit(guest, &[batch.request], &[(batch.record, 32)]);
                    ring.kick_if_wanted(guest, before);
                    lane.sent += 1;
                }
                if lane.done < lane.sent && guest.load_u8(lane.batches[lane.done].record) != 0 {
                    lane.done += 1;
                    // The used elements are taken as they come; the record is what is waited for.
                    while ring.poll(guest).is_some() {}
                }
                busy |= lane.done < lane.batches.len();
            }
            if !busy {
                break;
            }
            std::hint::spin_loop();
        }
        let elapsed = started.elapsed();
        for lane in &lanes {
            let ring = &mut self.front_end.rings[lane.ring];
            while ring.in_flight() > 0 {
                ring.wait(guest);
            }
        }
        for batch in batches {
            assert_eq!(guest.load_u8(batch.record), 1, "a batch failed");
        }
        elapsed
    }
}

/// A batch whose request is in the guest's memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prepared {
    request: (u64, u32),
    record: u64,
}

struct Lane {
    ring: usize,
    batches: Vec<Prepared>,
    sent: usize,
    done: usize,
}
