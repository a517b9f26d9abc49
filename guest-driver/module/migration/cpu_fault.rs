// SPDX-License-Identifier: GPL-2.0-only

//! A CPU touched a device page: bring it home, with its neighbours.
//!
//! This runs in whatever context the kernel faults in: the owner, another process that reads its
//! memory, or khugepaged. It takes no driver mutex, needs no memory but the destinations, and uses
//! the urgent queue.

use super::{
    ahead::Order,
    copy::{
        install,
        Copying, //
    },
    destinations::SystemDestinations,
    DeviceMemory, //
};
use crate::{
    link::{
        Lane,
        Link, //
    },
    stats::Stage,
    sys::{
        address_space::{
            clear_hold::{
                NotHeld,
                Undisturbed, //
            },
            exclusive::Exclusive, //
        },
        device_memory::pagemap::{
            Fault,
            FaultError, //
        },
        migrate::{
            Lease,
            Migration,
            Select, //
        },
        services::trace, //
    }, //
};
use hmm_logic::{
    Side,
    Window,
    WindowBounds,
    WINDOW_MOST, //
};
use hmm_protocol::Op;
use hmm_uapi::Trigger;
use kernel::{
    page::PAGE_SIZE,
    prelude::*, //
};

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
    let time = stats.measure(Stage::Fault, Trigger::CpuFault);
    let Some(link) = engine.link().enter() else {
        stats.cpu_faults_failed.add(1);
        return Err(FaultError::Lost);
    };
    let mut result = Err(FaultError::Lost);
    for _ in 0..TRIES {
        // Whoever has all the buffers waits for the device at most, which is bounded.
        match attempt(memory, &link, fault, engine.fault_buffers.lease()) {
            Attempt::Done(bytes) => result = Ok(bytes),
            Attempt::OutOfMemory => result = Err(FaultError::OutOfMemory),
            Attempt::NotCopied if !link.is_dead() => continue,
            Attempt::NotCopied => {}
        }
        break;
    }
    let (word, bytes) = match result {
        Ok(0) => ("retry", 0),
        Ok(bytes) => ("ok", bytes),
        Err(FaultError::OutOfMemory) => ("out_of_memory", 0),
        Err(FaultError::Lost) => ("lost", 0),
    };
    let address = fault.address();
    trace::fault(link.device(), address, word, bytes, time.started());
    if result.is_err() {
        stats.cpu_faults_failed.add(1);
    }
    result.map(|_| ())
}

/// What became of one attempt, as far as the page that the CPU waits for is concerned.
enum Attempt {
    /// It is home, along with others, so many bytes altogether. Or somebody else is at it, and
    /// nothing came home. The CPU shall look again.
    Done(u64),
    /// The device did not copy it; it is still on the device.
    NotCopied,
    /// No page for it.
    OutOfMemory,
}

/// What the fault brings home.
fn window(memory: &DeviceMemory, link: &Link, fault: &Fault<'_>) -> Window {
    let most = PAGE_SIZE << link.max_entries(Lane::Urgent).max(1).ilog2();
    let spaces = memory.ops().server().spaces();
    let advice = spaces.advice(fault.vma().mm(), fault.address());
    let bounds = if fault.is_huge() {
        // A huge page comes as a whole or not at all.
        WindowBounds::exactly(WINDOW_MOST)
    } else if fault.page().is_large() {
        // The kernel is about to split the huge page, which moves the lock that it holds to
        // another page. It copes with that for the page of the fault alone.
        WindowBounds::exactly(PAGE_SIZE)
    } else {
        let bounds = advice.window.unwrap_or(WindowBounds::DEFAULT);
        WindowBounds {
            least: bounds.least.min(most),
            most: bounds.most.min(most),
        }
    };
    let learned = &memory.ops().server().learned;
    let mut window = learned.fault_window(fault.vma(), fault.address(), bounds);
    if advice.side == Some(Side::Device) || advice.window.is_some() {
        // Who said what is to be where, or how much a fault is to take, gets no more than that.
        window.ahead.end = window.ahead.start;
    }
    window
}

/// Has a huge page split that must not come home as one.
fn split(memory: &DeviceMemory, link: &Link, fault: &Fault<'_>) -> Attempt {
    if link.is_dead() {
        return Attempt::NotCopied;
    }
    let ahead = memory.ops().server().ahead();
    match ahead.split(fault.vma().mm(), fault.address()) {
        Ok(()) => Attempt::Done(0),
        Err(_) => Attempt::OutOfMemory,
    }
}

fn attempt<'a>(
    memory: &'a DeviceMemory,
    link: &'a Link,
    fault: &'a Fault<'a>,
    lease: Lease<'a>,
) -> Attempt {
    let vma = fault.vma();
    let Window { now: range, ahead } = window(memory, link, fault);
    if !ahead.is_empty() {
        let (pool, mm) = (memory.ops(), vma.mm());
        let order = if ahead.start >= range.end {
            Order::Up
        } else {
            Order::Down
        };
        let ticket = pool.last_ticket();
        pool.server().ahead().fetch(mm, ahead, order, ticket);
    }
    let wanted = (fault.address() - range.start) / PAGE_SIZE;
    let start = range.start;

    let known = match fault.is_huge() {
        true => memory.ops().server().spaces().find(vma.mm()),
        false => None,
    };
    // The page is locked here, and migrations of the process may wait for it inside of their
    // invalidations. So this waits for no invalidation: the fault is retried instead.
    let held = match known.as_ref().zip(Exclusive::of(vma, range.clone())) {
        Some((known, exclusive)) => match known.try_hold(exclusive, memory.owner()) {
            Ok(held) => Some(held),
            Err(NotHeld::Unsettled) if memory.ops().server().ahead().settle(known).is_ok() => {
                return Attempt::Done(0);
            }
            Err(_) => None,
        },
        None => None,
    };
    let select = match &held {
        Some(held) => Select::DeviceHuge(Undisturbed::Held(held)),
        None if fault.is_huge() => return split(memory, link, fault),
        None => Select::Device,
    };

    let time = link.stats().measure(Stage::Setup, Trigger::CpuFault);
    let Ok(mut migration) = Migration::of_fault(fault, range, select, memory, lease) else {
        // To try again without end would be a livelock.
        return Attempt::NotCopied;
    };
    let time = time.then(Stage::Destinations);
    // Where the page that the CPU waits for is found: a huge page has one entry.
    let mut entry = wanted;
    let mut out_of_memory = false;
    let mut destinations = SystemDestinations::for_mapping(*vma, start, &migration);
    migration.for_each_source(|visit| {
        let at = visit.index();
        let is_wanted = (at..at + visit.pages()).contains(&wanted);
        if is_wanted {
            entry = at;
        }
        if out_of_memory {
            return;
        }
        // The CPU still refers to a huge page whose mapping is split, and then faults for one page.
        out_of_memory = !destinations.give_whole_or_first(visit) && is_wanted;
    });
    drop(time);
    if out_of_memory {
        return Attempt::OutOfMemory;
    }
    if !migration.has_destination(entry) {
        return Attempt::Done(0);
    }
    let copying = Copying::start(memory, link, Trigger::CpuFault, Op::ToSystem, migration);
    let (migration, _failed) = copying.finish();
    if !migration.has_destination(entry) {
        return Attempt::NotCopied;
    }
    let moved = install(link.stats(), Trigger::CpuFault, migration);
    let bytes = (moved * PAGE_SIZE) as u64;
    link.stats().bytes_to_system.add(bytes);
    link.stats().bytes_by_fault.add(bytes);
    Attempt::Done(bytes)
}
