// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The yardstick: memcpy of the same pages. Not of pages like them: where pages happen to lie in a host's memory makes
//! more of a difference than anything that is measured here, so the very pages of the device are mapped.

use std::{
    fs::{File, OpenOptions},
    time::{Duration, Instant},
};

use hmm_front_end::Guest;
use hmm_protocol::Op;
use rustix::{
    mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap},
    time::{ClockId, clock_gettime},
};

use crate::load::Batch;

/// Huge pages, and the device's own mapping of its memory, are aligned to this.
const ALIGNMENT: usize = 2 << 20;

/// The memory of a device, mapped in this process as the device maps it.
pub(crate) struct Baseline {
    reserved: *mut u8,
    start: *mut u8,
    bytes: usize,
}

impl Baseline {
    /// The `bytes` bytes of memory that process `pid` serves.
    pub(crate) fn of(pid: u32, bytes: u64) -> Self {
        let file = memory_of(pid);
        let bytes = bytes as usize;
        // SAFETY: without MAP_FIXED the kernel picks a range that nothing uses.
        let reserved = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                bytes + ALIGNMENT,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        }
        .expect("addresses")
        .cast::<u8>();
        let padding = reserved.align_offset(ALIGNMENT);
        // SAFETY: `padding` is less than ALIGNMENT, by which the reservation is larger than the mapping, and the
        // reservation is used here alone.
        let start = unsafe {
            mmap(
                reserved.add(padding).cast(),
                bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::FIXED,
                &file,
                0,
            )
        }
        .expect("the device's memory can be mapped");
        // SAFETY: the range is the mapping that was just made; neither changes a byte.
        unsafe {
            // As the device asks; a kernel without huge pages says no to both.
            let _ = madvise(start, bytes, Advice::LinuxHugepage);
            madvise(start, bytes, Advice::LinuxPopulateWrite).expect("it can be touched");
        }
        Self {
            reserved,
            start: start.cast(),
            bytes,
        }
    }

    /// Where the memory begins.
    pub(crate) fn start(&self) -> *mut u8 {
        self.start
    }

    /// Bytes that huge pages map in this process.
    pub(crate) fn huge_bytes(&self) -> u64 {
        let account = std::fs::read_to_string("/proc/self/smaps").expect("an account");
        let start = format!("{:x}-", self.start as usize);
        account
            .lines()
            .skip_while(|line| !line.starts_with(&start))
            .find_map(|line| line.strip_prefix("ShmemPmdMapped:"))
            .and_then(|text| text.trim().strip_suffix(" kB")?.parse::<u64>().ok())
            .map_or(0, |kilobytes| kilobytes << 10)
    }

    /// Copies `batches` as memcpy does it and returns the time that passed and the processor time.
    pub(crate) fn run(&self, guest: &Guest, batches: &[Batch]) -> (Duration, Duration) {
        let base = guest.host_address(0) as *mut u8;
        let started = Instant::now();
        let spent = processor_time();
        for batch in batches {
            let bytes = batch.shape.entry_bytes() as usize;
            for (address, device) in &batch.entries {
                // SAFETY: batches lie within both footprints, which are mapped; the two are different mappings, and the
                // device touches neither while this runs.
                unsafe {
                    let guest = base.add(*address as usize);
                    let device = self.start.add(*device as usize);
                    match batch.op {
                        Op::ToSystem => std::ptr::copy_nonoverlapping(device, guest, bytes),
                        _ => std::ptr::copy_nonoverlapping(guest, device, bytes),
                    }
                }
            }
        }
        (started.elapsed(), processor_time().saturating_sub(spent))
    }
}

impl Drop for Baseline {
    fn drop(&mut self) {
        // SAFETY: the range was reserved by `of` and belongs to this object alone.
        let _ = unsafe { munmap(self.reserved.cast(), self.bytes + ALIGNMENT) };
    }
}

/// The file behind the memory of the device `pid`: it is among its descriptors.
fn memory_of(pid: u32) -> File {
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("the device's files");
    let path = descriptors
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| {
            std::fs::read_link(path)
                .is_ok_and(|name| name.to_string_lossy().contains("hmm-device-memory"))
        })
        .expect("the device's memory is a memfd");
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .expect("the device's memory can be opened")
}

/// Processor time of this thread.
pub(crate) fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
