// SPDX-License-Identifier: GPL-2.0-only

//! Migrates a range of an address space; a large one with several workers.

use super::{
    frontier::Frontier,
    team::Team,
    work::{
        Role,
        Work, //
    }, //
};
use crate::{
    device::Device,
    engine::BATCH_PAGES,
    migration::{
        evict,
        migrate_args::{
            MigrateArgs,
            TABLE_BYTES, //
        },
        tally::Tally, //
    },
    policy::WatchedSpace,
    sys::{
        address_space::{
            mm::end_of_addresses,
            process::Process, //
        },
        services::cpu::online_cpus, //
    }, //
};
use core::ops::Range;
use hmm_uapi::{
    Direction,
    SkipReason, //
};
use kernel::{
    mm::MmWithUser,
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    sync::{
        atomic::ordering::Relaxed,
        Arc, //
    }, //
};

/// Most bytes that a worker takes at once; a signal is noticed after so many.
const PIECE_MOST: usize = BATCH_PAGES * PAGE_SIZE;
/// Workers that help with one request, beside the caller.
const HELPERS: usize = 3;

/// Whose memory is moved.
pub(crate) struct Target<'a> {
    pub(crate) process: &'a Process,
    /// What is known of it.
    pub(crate) known: Option<WatchedSpace>,
    /// Whether the caller is told to stop by other means than a signal.
    pub(crate) is_stopped: &'a dyn Fn() -> bool,
}

/// Moves `range` (page aligned) of the memory of a process. Addresses without pages that follow are
/// passed over and counted, up to `horizon`. Returns the address where it stopped, which is before the
/// end of `range` only if a signal came, the caller was told to stop, or the process has left.
///
/// # Errors
///
/// `ENOMEM`, `ENODEV` if the device is dead, or `ERESTARTSYS` if a signal came before anything moved.
pub(crate) fn migrate(
    device: &Device,
    target: Target<'_>,
    range: Range<usize>,
    horizon: usize,
    args: MigrateArgs,
    tally: &mut Tally,
) -> Result<usize> {
    kernel::task::might_sleep();
    // From here on no sum of addresses or sizes can overflow.
    let limit = end_of_addresses(target.process.mm());
    let within = range.start.min(limit)..range.end.min(limit);
    let reached = if within.is_empty() {
        limit
    } else {
        migrate_within(device, target, within, horizon.min(limit), args, tally)?
    };
    if reached < limit || horizon <= limit {
        return Ok(reached);
    }
    // No process can map these. They are in no counter of the device, which would soon be full.
    let beyond = limit.max(range.start)..horizon;
    tally.skip_in_reply(SkipReason::Unmapped, (beyond.len() >> PAGE_SHIFT) as u64);
    Ok(horizon)
}

/// As [`migrate`], for addresses that the process can map.
fn migrate_within(
    device: &Device,
    target: Target<'_>,
    range: Range<usize>,
    horizon: usize,
    mut args: MigrateArgs,
    tally: &mut Tally,
) -> Result<usize> {
    let workers = (HELPERS + 1).min(online_cpus());
    // Also what is no larger than a piece is shared.
    let tables = range.end.div_ceil(TABLE_BYTES) - range.start / TABLE_BYTES;
    let piece = (tables.div_ceil(workers) * TABLE_BYTES).clamp(TABLE_BYTES, PIECE_MOST);
    let pieces = (tables * TABLE_BYTES).div_ceil(piece);
    // A thread that takes system pages of an address space interrupts every CPU that runs in it, for
    // each page. So the caller leaves that to workers, which run in none, and sleeps.
    let is_left_to_others = args.direction == Direction::ToDevice
        && workers > 1
        && pieces > 1
        && is_own(target.process.mm());
    let helpers = match is_left_to_others {
        true => workers.min(pieces),
        false => (workers - 1).min(pieces - 1),
    };
    let frontier = Frontier::new(range, horizon, piece);
    if args.direction == Direction::ToDevice && args.huge {
        // It may move its pages with UFFDIO_MOVE, which refuses huge device pages.
        args.huge = !target.process.has_userfaultfd();
    }
    let Target {
        process,
        known,
        is_stopped,
    } = target;
    let work = Work::new(process.clone(), known, frontier, args)?;
    let team = Arc::pin_init(Team::new(), GFP_KERNEL)?;

    for _ in 0..helpers {
        let (work, pool, member) = (work.clone(), device.pool().clone(), Team::join(&team));
        // Without help it takes longer, that is all.
        let _ = device.engine().workers.spawn(move || {
            if let Some(device) = pool.attached() {
                // A helper without memory has taken nothing, so the others do its part.
                let _ = work.run(&device, Role::Helper(&member));
            }
            // The caller goes on once the member is gone, and then the rest must be, too.
            drop(work);
            drop(pool);
            drop(member);
        });
    }
    if is_left_to_others {
        team.wait(|| work.heed(is_stopped));
    }
    // What the helpers left, if anything.
    let own = work.run(device, Role::Caller(is_stopped));
    team.wait(|| work.heed(is_stopped));
    if work.was_short.load(Relaxed) {
        evict::in_background(device, args.ticket);
    }

    let result = work.result.lock();
    *tally = result.tally;
    match result.error {
        Some(error) => return Err(error),
        // The helpers may have done all of it meanwhile, or a signal may have ended it.
        None if !work.frontier.is_exhausted() => own?,
        None => {}
    }
    Ok(work.frontier.reached())
}

/// Whether `mm` is what the caller runs in.
fn is_own(mm: &MmWithUser) -> bool {
    current!()
        .mm()
        .is_some_and(|own| own.as_raw() == mm.as_raw())
}
