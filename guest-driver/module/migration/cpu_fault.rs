// SPDX-License-Identifier: GPL-2.0-only

//! A CPU touched a device page: it is migrated back to system memory, with its neighbours.
//!
//! This runs in the context in which the kernel faults: the owner, another process that reads its
//! memory, or khugepaged. It takes no driver mutex, needs no memory but the destinations, and uses
//! the urgent queue.

use super::{
    bring_back::bring_back,
    copy::{
        install,
        Copying, //
    },
    destinations::SystemDestinations,
    readahead::{
        self,
        ScanDirection, //
    },
    split, //
};
use crate::{
    device::Device,
    link::Lane,
    policy::WatchedSpace,
    pool::FaultServer,
    stats::Stage,
    sys::{
        address_space::{
            exclusive::Exclusive,
            tracking::KeptTables, //
            zap_guard::{
                NotHeld,
                ZapExclusion, //
            },
        },
        device_memory::{
            pagemap::{
                Fault,
                FaultError, //
            },
            placement::Placement, //
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

impl FaultServer for Device {
    fn serve(&self, fault: &Fault<'_>) -> Result<(), FaultError> {
        serve(self, fault)
    }

    fn bring_back(&self, tables: KeptTables<'_>, placement: Option<Placement>) {
        bring_back(self, tables, placement);
    }
}

fn serve(device: &Device, fault: &Fault<'_>) -> Result<(), FaultError> {
    let stats = device.stats();
    stats.cpu_faults.add(1);
    let time = stats.measure(Stage::Fault, Trigger::CpuFault);
    let mut result = Err(FaultError::Lost);
    for _ in 0..TRIES {
        // Faults that have the buffers wait for the device at most, which is bounded.
        match attempt(device, fault, device.engine().fault_buffers.lease()) {
            Attempt::Done(bytes) => result = Ok(bytes),
            Attempt::OutOfMemory => result = Err(FaultError::OutOfMemory),
            Attempt::NotCopied if !device.link().is_dead() => continue,
            Attempt::NotCopied => result = Err(FaultError::NoDevice),
        }
        break;
    }
    let (word, bytes) = match result {
        Ok(0) => ("retry", 0),
        Ok(bytes) => ("ok", bytes),
        Err(FaultError::OutOfMemory) => ("out_of_memory", 0),
        Err(FaultError::NoDevice) => ("no_device", 0),
        Err(FaultError::Lost | FaultError::Poisoned) => ("lost", 0),
    };
    let address = fault.address();
    trace::fault(device.vdev(), address, word, bytes, time.started());
    if result.is_err_and(|error| error != FaultError::NoDevice) {
        stats.cpu_faults_failed.add(1);
    }
    result.map(|_| ())
}

/// What became of one attempt, as far as the page that the CPU waits for is concerned.
enum Attempt {
    /// So many bytes migrated back, that page among them; or none, since another task migrates it.
    /// The fault is retried.
    Done(u64),
    /// The device did not copy it; it is still on the device.
    NotCopied,
    /// No page for it.
    OutOfMemory,
}

/// The addresses that the fault migrates back.
fn window(device: &Device, fault: &Fault<'_>) -> Window {
    let most = PAGE_SIZE << device.link().max_entries(Lane::Urgent).max(1).ilog2();
    let advice = device.spaces().advice(fault.vma().mm(), fault.address());
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
    let tuning = &device.engine().tuning;
    let mut window = tuning.fault_window(fault.vma(), fault.address(), bounds);
    if advice.side == Some(Side::Device) || advice.window.is_some() {
        // A process that advised on the side or on the size of a fault gets no more than that.
        window.ahead.end = window.ahead.start;
    }
    window
}

/// Lets a worker split a huge page that must not be migrated as one.
fn split(device: &Device, fault: &Fault<'_>) -> Attempt {
    if device.link().is_dead() {
        return Attempt::NotCopied;
    }
    match split::spawn(device, fault.vma().mm(), fault.address()) {
        Ok(()) => Attempt::Done(0),
        Err(_) => Attempt::OutOfMemory,
    }
}

/// Lets a worker wait until no task zaps PTEs of the process. A fault, which must not wait for that,
/// is retried meanwhile. Returns whether a worker waits.
fn settle(device: &Device, known: &WatchedSpace) -> bool {
    let engine = device.engine();
    if device.link().is_stopping() {
        return false;
    }
    // A fault that finds all such workers busy is retried all the same.
    let Some(turn) = engine.settles.take() else {
        return true;
    };
    let known = known.clone();
    let spawned = engine.workers.spawn(move || {
        known.settle();
        drop(turn);
    });
    spawned.is_ok()
}

fn attempt<'a>(device: &'a Device, fault: &'a Fault<'a>, lease: Lease<'a>) -> Attempt {
    let vma = fault.vma();
    let Window { now: range, ahead } = window(device, fault);
    if !ahead.is_empty() {
        let direction = if ahead.start >= range.end {
            ScanDirection::Up
        } else {
            ScanDirection::Down
        };
        let ticket = device.pages().last_ticket();
        readahead::spawn(device, vma.mm(), ahead, direction, ticket);
    }
    let wanted = (fault.address() - range.start) / PAGE_SIZE;
    let start = range.start;

    let known = match fault.is_huge() {
        true => device.spaces().find(vma.mm()),
        false => None,
    };
    // The page is locked here, and migrations of the process may wait for it inside of their
    // invalidations. So this waits for no invalidation: the fault is retried instead.
    let held = match known.as_ref().zip(Exclusive::of(vma, range.clone())) {
        Some((known, exclusive)) => match known.try_hold(exclusive, device.memory().owner()) {
            Ok(held) => Some(held),
            Err(NotHeld::Unsettled) if settle(device, known) => return Attempt::Done(0),
            Err(_) => None,
        },
        None => None,
    };
    let select = match &held {
        Some(held) => Select::DeviceHuge(ZapExclusion::Held(held)),
        None if fault.is_huge() => return split(device, fault),
        None => Select::Device,
    };

    let stats = device.stats();
    let time = stats.measure(Stage::Setup, Trigger::CpuFault);
    let Ok(mut migration) = Migration::of_fault(fault, range, select, device.memory(), lease)
    else {
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
    let copying = Copying::start(device, Trigger::CpuFault, Op::ToSystem, migration);
    let (migration, _failed) = copying.finish();
    if !migration.has_destination(entry) {
        return Attempt::NotCopied;
    }
    let moved = install(stats, Trigger::CpuFault, migration);
    let bytes = (moved * PAGE_SIZE) as u64;
    stats.bytes_to_system.add(bytes);
    stats.bytes_by_fault.add(bytes);
    Attempt::Done(bytes)
}
