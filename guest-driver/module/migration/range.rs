// SPDX-License-Identifier: GPL-2.0-only

//! Moves a range of an address space; a large one with several workers.

mod account;
mod explain;
mod frontier;
mod hold;
mod merged;
mod walk;

pub(super) use self::account::Account;
use self::{
    frontier::Frontier,
    walk::{
        walk,
        Request, //
    }, //
};
use super::{
    evict,
    Tally, //
};
use crate::{
    device::Device,
    engine::BATCH_PAGES,
    policy::Known,
    pool::{
        AccountId,
        Ticket, //
    },
    sys::{
        address_space::{
            mm::end_of_addresses,
            snapshot::Snapshot, //
        },
        services::{
            cpu::online_cpus,
            signal::signal_waits, //
        }, //
    }, //
};
use core::ops::Range;
use hmm_uapi::{
    Direction,
    MigrateFlags,
    SkipReason,
    Trigger, //
};
use kernel::{
    mm::MmWithUser,
    new_condvar,
    new_mutex,
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            ordering::Relaxed,
            AtomicFlag, //
        },
        Arc,
        CondVar,
        Mutex, //
    }, //
};

/// Most bytes that a worker takes at once; a signal is noticed after so many.
const PIECE_MOST: usize = BATCH_PAGES * PAGE_SIZE;
/// What one page table maps, bytes: the least that is worth waking a worker for.
const TABLE_BYTES: usize = 2 << 20;
/// Workers that help with one request, beside the caller.
const HELPERS: usize = 3;

/// What is to be moved.
#[derive(Clone, Copy)]
pub(crate) struct Order {
    pub(crate) direction: Direction,
    pub(crate) flags: MigrateFlags,
    /// Whether huge pages may be huge on the device.
    pub(crate) huge: bool,
    /// When the request began: what was wanted on the device before may be evicted for it.
    pub(crate) ticket: Ticket,
    /// Who wants it.
    pub(crate) trigger: Trigger,
    /// Who is charged for device memory.
    pub(crate) account: AccountId,
}

/// Moves `range` (page aligned) of `mm`. Addresses without pages that follow are passed over and
/// counted, up to `horizon`. Returns the address where it stopped, which is before the end of `range`
/// only if a signal came.
///
/// # Errors
///
/// `ENOMEM`, `ENODEV` if the device is dead, or `ERESTARTSYS` if a signal came before anything moved.
pub(crate) fn migrate(
    device: &Device,
    mm: &ARef<MmWithUser>,
    known: Option<Known>,
    range: Range<usize>,
    horizon: usize,
    order: Order,
    tally: &mut Tally,
) -> Result<usize> {
    kernel::task::might_sleep();
    // From here on no sum of addresses or sizes can overflow.
    let limit = end_of_addresses(mm);
    let within = range.start.min(limit)..range.end.min(limit);
    let reached = if within.is_empty() {
        limit
    } else {
        migrate_within(device, mm, known, within, horizon.min(limit), order, tally)?
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
    mm: &ARef<MmWithUser>,
    known: Option<Known>,
    range: Range<usize>,
    horizon: usize,
    order: Order,
    tally: &mut Tally,
) -> Result<usize> {
    let workers = (HELPERS + 1).min(online_cpus());
    // Also what is no larger than a piece is shared.
    let tables = range.end.div_ceil(TABLE_BYTES) - range.start / TABLE_BYTES;
    let piece = (tables.div_ceil(workers) * TABLE_BYTES).clamp(TABLE_BYTES, PIECE_MOST);
    let pieces = (tables * TABLE_BYTES).div_ceil(piece);
    // A thread that takes system pages of an address space interrupts every CPU that runs in it, for
    // each page. So the caller leaves that to workers, which run in none, and sleeps.
    let is_left_to_others =
        order.direction == Direction::ToDevice && workers > 1 && pieces > 1 && is_own(mm);
    let helpers = match is_left_to_others {
        true => workers.min(pieces),
        false => (workers - 1).min(pieces - 1),
    };
    let frontier = Frontier::new(range, horizon, piece);
    let work = Work::new(mm.clone(), known, frontier, order)?;
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
        team.wait(|| work.heed_signals());
    }
    // What the helpers left, if anything.
    let own = work.run(device, Role::Caller);
    team.wait(|| work.heed_signals());
    if work.was_short.load(Relaxed) {
        evict::in_background(device, order.ticket);
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

/// Who works on a request.
#[derive(Clone, Copy)]
enum Role<'a> {
    /// Whose request it is.
    Caller,
    /// Somebody who helps.
    Helper(&'a Member),
}

/// A request that several work on.
#[pin_data]
struct Work {
    mm: ARef<MmWithUser>,
    known: Option<Known>,
    order: Order,
    #[pin]
    snapshot: Snapshot,
    frontier: Frontier,
    /// Whether device memory was short.
    was_short: AtomicFlag,
    #[pin]
    result: Mutex<Outcome>,
}

/// What came of it so far.
#[derive(Default)]
struct Outcome {
    tally: Tally,
    error: Option<Error>,
}

impl Work {
    fn new(
        mm: ARef<MmWithUser>,
        known: Option<Known>,
        frontier: Frontier,
        order: Order,
    ) -> Result<Arc<Self>> {
        let seen = mm.clone();
        Arc::pin_init(
            try_pin_init!(Self {
                mm,
                known,
                order,
                // Before the mmap lock is taken.
                snapshot <- Snapshot::new(&seen),
                frontier,
                was_short: AtomicFlag::new(false),
                result <- new_mutex!(Outcome::default(), "migration::range::Work::result"),
            }? Error),
            GFP_KERNEL,
        )
    }

    /// Takes pieces and moves them until there are none, an error occurs, or the caller gets a
    /// signal.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: no piece was taken. Errors of pieces are in the result.
    fn run(&self, device: &Device, role: Role<'_>) -> Result {
        if self.frontier.is_exhausted() {
            return Ok(());
        }
        let request = Request {
            device,
            mm: &self.mm,
            known: self.known.as_ref(),
            order: self.order,
            snapshot: &self.snapshot,
            frontier: &self.frontier,
            was_short: &self.was_short,
        };
        let mut tally = Tally::default();
        let result = device.engine().scratches.with(|scratch| {
            while let Some(piece) = self.frontier.take() {
                walk(&request, piece, scratch, &mut tally)?;
                match role {
                    Role::Caller => self.heed_signals(),
                    Role::Helper(member) => member.report(),
                }
            }
            Ok(())
        })?;
        let mut outcome = self.result.lock();
        outcome.tally.add(&tally);
        if let Err(error) = result {
            self.frontier.stop();
            outcome.error = Some(error);
        }
        Ok(())
    }

    /// Lets no thread take another piece if a signal waits for the caller, who calls this.
    fn heed_signals(&self) {
        if signal_waits() {
            self.frontier.stop();
        }
    }
}

/// Those who help with a request.
#[pin_data]
struct Team {
    #[pin]
    members: Mutex<usize>,
    #[pin]
    left: CondVar,
}

impl Team {
    fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            members <- new_mutex!(0, "migration::range::Team::members"),
            left <- new_condvar!("migration::range::Team::left"),
        })
    }

    fn join(team: &Arc<Self>) -> Member {
        *team.members.lock() += 1;
        Member(team.clone())
    }

    /// Waits until all members have left, and calls `meanwhile` whenever one has done a piece. What
    /// they do is bounded.
    fn wait(&self, meanwhile: impl Fn()) {
        let mut members = self.members.lock();
        while *members > 0 {
            self.left.wait(&mut members);
            meanwhile();
        }
    }
}

/// A place in the team, which is left by dropping it.
struct Member(Arc<Team>);

impl Member {
    /// Lets whoever waits for the team look around.
    fn report(&self) {
        self.0.left.notify_one();
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        *self.0.members.lock() -= 1;
        self.0.left.notify_one();
    }
}
