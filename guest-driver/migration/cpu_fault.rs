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
        page::{
            Destination,
            HUGE_PAGES, //
        },
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

/// Single pages that one fault brings home at most.
const WINDOW_PAGES: usize = 16;
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

/// Bytes around the address of a fault that come home with it, a power of two.
fn window(link: &Link, fault: &Fault<'_>) -> usize {
    if fault.is_huge() {
        // A huge page comes as a whole or not at all.
        return HUGE_PAGES * PAGE_SIZE;
    }
    if fault.page().is_large() {
        // The kernel is about to split the huge page, which moves the lock that it holds to
        // another page. It copes with that for the page of the fault alone.
        return PAGE_SIZE;
    }
    let pages = WINDOW_PAGES.min(link.max_entries(Lane::Urgent));
    PAGE_SIZE << pages.ilog2()
}

fn attempt(
    memory: &DeviceMemory,
    link: &Link,
    fault: &Fault<'_>,
    buffers: &mut Buffers,
) -> Attempt {
    let vma = fault.vma();
    let range = window_around(fault.address(), vma.start()..vma.end(), window(link, fault));
    let wanted = (fault.address() - range.start) / PAGE_SIZE;
    let start = range.start;

    let Ok(mut migration) = Migration::of_fault(fault, range, memory, buffers) else {
        // To try again without end would be a livelock.
        return Attempt::NotCopied;
    };
    // Where the page that the CPU waits for is found: a huge page has one entry.
    let mut entry = wanted;
    let mut index = 0;
    while index < migration.len() {
        let source = migration.source(index);
        let at = index;
        index += source.pages();
        let is_wanted = (at..index).contains(&wanted);
        if is_wanted {
            entry = at;
        }
        let address = start + at * PAGE_SIZE;
        let destination = match source {
            // Holes are reported, too; they are none of our business.
            Source::Skipped | Source::Hole | Source::HugeHole => continue,
            Source::Page(_) => Destination::system_for(vma, address),
            // Without a huge page, one single page makes the kernel split the mapping, though not
            // the page, which the CPU still refers to. The CPU then comes back for one page.
            Source::HugePage(_) => Destination::huge_system_for(vma, address)
                .or_else(|_| Destination::system_for(vma, address)),
        };
        match destination {
            Ok(destination) => migration.set_destination(at, destination),
            Err(_) if is_wanted => return Attempt::OutOfMemory,
            Err(_) => {}
        }
    }
    if !migration.has_destination(entry) {
        return Attempt::Done;
    }
    copy(memory, link, Lane::Urgent, Op::ToSystem, &mut migration);
    if !migration.has_destination(entry) {
        return Attempt::NotCopied;
    }
    let installed = migration.install();
    let moved = installed.moved();
    drop(installed);
    let bytes = (moved * PAGE_SIZE) as u64;
    link.stats().bytes_to_system.add(bytes);
    link.stats().bytes_by_fault.add(bytes);
    Attempt::Done
}
