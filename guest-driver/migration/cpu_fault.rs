// SPDX-License-Identifier: GPL-2.0-only

//! A CPU touched a device page: bring it home, with its neighbours.
//!
//! This runs in whatever context the kernel faults in: the owner, another process that reads its
//! memory, or khugepaged. It takes no driver mutex, allocates nothing but the destinations, and
//! uses the urgent queue.

use super::{
    copy::copy,
    DeviceMemory, //
};
use crate::{
    link::{
        Lane,
        Link, //
    },
    sys::{
        migrate::{
            Buffers,
            Migration,
            Source, //
        },
        page::Destination,
        pagemap::{
            Fault,
            FaultError, //
        }, //
    }, //
};
use hmm_logic::window_around;
use hmm_protocol::Op;
use kernel::{
    page::PAGE_SIZE,
    prelude::*, //
};

/// Pages that one fault brings home at most.
pub(super) const WINDOW_PAGES: usize = 16;
/// How often a fault is tried before its process gets SIGBUS.
const TRIES: usize = 3;

/// Serves a fault.
///
/// # Errors
///
/// [`FaultError`].
pub(super) fn serve(memory: &DeviceMemory, fault: &Fault<'_>) -> Result<(), FaultError> {
    kernel::task::might_sleep();
    let engine = memory.ops().server();
    let stats = engine.stats();
    stats.cpu_faults.add(1);
    let Some(link) = engine.link().enter() else {
        stats.cpu_faults_failed.add(1);
        return Err(FaultError::Lost);
    };
    let result = engine.fault_contexts.with(|buffers| {
        for _ in 0..TRIES {
            match attempt(memory, &link, fault, buffers) {
                Attempt::Done => return Ok(()),
                Attempt::OutOfMemory => return Err(FaultError::OutOfMemory),
                Attempt::NotCopied if link.is_dead() => break,
                Attempt::NotCopied => {}
            }
        }
        Err(FaultError::Lost)
    });
    if result.is_err() {
        stats.cpu_faults_failed.add(1);
    }
    result
}

/// What became of one attempt, as far as the page that the CPU waits for is concerned.
enum Attempt {
    /// It is home, or somebody else is at it: the CPU shall look again.
    Done,
    /// The device did not copy it; it is still on the device.
    NotCopied,
    /// No page for it.
    OutOfMemory,
}

fn attempt(
    memory: &DeviceMemory,
    link: &Link,
    fault: &Fault<'_>,
    buffers: &mut Buffers,
) -> Attempt {
    let vma = fault.vma();
    let window = WINDOW_PAGES.min(link.max_entries(Lane::Urgent)) * PAGE_SIZE;
    // The window is a power of two unless the device's limit is odd.
    let window = 1 << window.ilog2();
    let range = window_around(fault.address(), vma.start()..vma.end(), window);
    let wanted = (fault.address() - range.start) / PAGE_SIZE;
    let start = range.start;

    let Ok(mut migration) = Migration::of_fault(fault, range, memory, buffers) else {
        // To try again without end would be a livelock.
        return Attempt::NotCopied;
    };
    for page in 0..migration.len() {
        // Holes are reported, too; they are none of our business.
        if !matches!(migration.source(page), Source::Page(_)) {
            continue;
        }
        match Destination::system_for(vma, start + page * PAGE_SIZE) {
            Ok(destination) => migration.set_destination(page, destination),
            Err(_) if page == wanted => return Attempt::OutOfMemory,
            Err(_) => {}
        }
    }
    if migration.destination(wanted).is_none() {
        return Attempt::Done;
    }
    copy(memory, link, Lane::Urgent, Op::ToSystem, &mut migration);
    if migration.destination(wanted).is_none() {
        return Attempt::NotCopied;
    }
    let installed = migration.install();
    let moved = (0..installed.len())
        .filter(|&page| installed.has_moved(page))
        .count();
    drop(installed);
    let bytes = (moved * PAGE_SIZE) as u64;
    link.stats().bytes_to_system.add(bytes);
    link.stats().bytes_by_fault.add(bytes);
    Attempt::Done
}
