// SPDX-License-Identifier: GPL-2.0-only

//! Migrates pages back before the kernel does something wrong with their entries.
//!
//! `clear_refs`, `PAGEMAP_SCAN`, `fork()` and `mprotect()` lose what is known of writes to device pages, and
//! `UFFDIO_MOVE` does not move them (`docs/kernel-faults.md`). Each tells the driver before it looks at the
//! entries. So the driver migrates the pages back first.
//!
//! The task that waits here holds the mmap lock, and is within an invalidation. So the worker that
//! migrates takes no mmap lock, begins no `ZapGuard`, waits for no invalidation, and has buffers that no
//! task keeps which does. Huge pages stay: their entries are kept right, or nothing can be done for them.

use super::evict;
use crate::{
    device::Device,
    sys::{
        address_space::tracking::{
            Found,
            KeptTables, //
        },
        device_memory::placement::Placement, //
    }, //
};
use hmm_logic::BLOCK_PAGES;
use kernel::{
    alloc::flags::GFP_NOWAIT,
    prelude::*,
    sync::{
        atomic::{
            ordering::{
                Acquire,
                Relaxed,
                Release, //
            },
            Atomic,
            AtomicFlag, //
        },
        Arc, //
    },
    time::{
        delay::fsleep,
        Delta,
        Instant,
        Monotonic, //
    }, //
};

/// Pages that a worker is given at once.
const PAGES: usize = 512;
/// How long to wait before looking again, at first and at most.
const PAUSE: (Delta, Delta) = (Delta::from_micros(50), Delta::from_millis(2));
/// After so long without a page that moved the rest stays.
const PATIENCE: Delta = Delta::from_millis(10_000);

/// What a worker tells the task that waits for it.
struct Outcome {
    has_ended: AtomicFlag,
    moved: Atomic<usize>,
}

/// Migrates the single pages of a range back, and waits for those that other tasks migrate. A task that
/// has locked a page may keep it there; then this gives up after a while.
pub(super) fn bring_back(
    device: &Device,
    mut tables: KeptTables<'_>,
    placement: Option<Placement>,
) {
    if *crate::module_parameters::track_writes.value_ref() == 0 {
        return;
    }
    let (mut pause, most) = PAUSE;
    let mut last_progress = Instant::<Monotonic>::now();
    while tables.len() > 0 && !device.link().is_dead() {
        let moved = match front(device, &tables) {
            Ok((
                _,
                Found {
                    end,
                    pages: 0,
                    is_migrating: false,
                },
            )) => {
                tables.begin_at(end);
                continue;
            }
            Ok((frames, Found { pages: 1.., .. })) => hand_over(device, frames, placement.clone()),
            // Another task migrates pages, or there is no memory at the moment.
            Ok(_) | Err(_) => 0,
        };
        if moved > 0 {
            (pause, last_progress) = (PAUSE.0, Instant::now());
            continue;
        }
        if last_progress.elapsed() > PATIENCE {
            pr_warn!("pages stay on the device though writes to them are to be tracked\n");
            return;
        }
        fsleep(pause);
        pause = (pause + pause).min(most);
    }
}

/// The frames of device pages at the front of the range.
fn front(device: &Device, tables: &KeptTables<'_>) -> Result<(KVec<usize>, Found)> {
    let mut frames = KVec::from_elem(0, PAGES, GFP_NOWAIT | __GFP_NOWARN)?;
    let found = tables.device_pages(device.memory().owner(), &mut frames);
    frames.truncate(found.pages);
    Ok((frames, found))
}

/// Has a worker migrate pages back, and waits for it. Returns how many migrated.
fn hand_over(device: &Device, frames: KVec<usize>, placement: Option<Placement>) -> usize {
    let outcome = Outcome {
        has_ended: AtomicFlag::new(false),
        moved: Atomic::new(0),
    };
    let Ok(outcome) = Arc::new(outcome, GFP_NOWAIT | __GFP_NOWARN) else {
        return 0;
    };
    let (told, pool) = (outcome.clone(), device.pool().clone());
    let spawned = device.engine().workers.spawn_now(move || {
        if let Some(device) = pool.attached_for_change() {
            told.moved
                .store(migrate(&device, frames, placement), Relaxed);
        }
        told.has_ended.store(true, Release);
    });
    let begun = Instant::<Monotonic>::now();
    while spawned.is_ok() && !outcome.has_ended.load(Acquire) && begun.elapsed() < PATIENCE {
        fsleep(PAUSE.0);
    }
    outcome.moved.load(Relaxed)
}

/// Migrates the pages with these frames back, a run after the other. Returns how many migrated.
fn migrate(device: &Device, mut frames: KVec<usize>, placement: Option<Placement>) -> usize {
    frames.sort_unstable();
    let mut moved = 0;
    for run in frames.chunk_by(|frame, next| frame + 1 == *next) {
        for part in run.chunks(BLOCK_PAGES) {
            if let Some(first) = part
                .first()
                .and_then(|&frame| device.memory().index_of_pfn(frame))
            {
                moved += evict::bring_back(device, first..first + part.len(), placement.clone());
            }
        }
    }
    moved
}
