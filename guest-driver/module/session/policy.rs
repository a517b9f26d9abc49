// SPDX-License-Identifier: GPL-2.0-only

//! The ioctls by which a process says where its memory had better be.

use super::{
    argument::Argument,
    call::{
        page_range,
        Call,
        OpenSession,
        RangeProgress, //
    },
    prefetch::Job, //
};
use crate::{
    engine::BATCH_PAGES,
    migration::{
        evict,
        range::{
            migrate,
            Target, //
        },
        Tally, //
    },
    pool::AccountId,
    sys::{
        address_space::{
            mm::{
                next_populated,
                Vma, //
            },
            mmap_lock::MmapReadGuard,
            process::{
                may_raise_limits,
                may_touch_all, //
            },
            snapshot::{
                Place,
                Snapshot, //
            },
        },
        services::signal::signal_waits, //
    }, //
};
use core::ops::Range;
use hmm_logic::{
    Advice,
    Side,
    WindowBounds,
    WINDOW_MOST, //
};
use hmm_uapi::{
    Advise,
    AdviseFlags,
    Direction,
    Evict,
    Limit,
    LimitFlags,
    MigrateFlags,
    PreferredSide,
    Prefetch,
    PrefetchState,
    Trigger,
    Wait,
    WaitFlags,
    NO_LIMIT, //
};
use kernel::{
    mm::MmWithUser,
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*, //
};

/// What ADVISE changes; `None` stays as it was.
#[derive(Clone, Copy)]
struct Change {
    side: Option<Option<Side>>,
    keep: Option<bool>,
    window: Option<Option<WindowBounds>>,
    touches: Option<Option<u32>>,
}

impl Change {
    fn new(call: &Advise) -> Result<Self> {
        let flags = AdviseFlags(call.flags);
        if flags.0 == 0 || flags.0 & !AdviseFlags::ALL.0 != 0 || call.reserved != 0 {
            return Err(EINVAL);
        }
        // Values that do not count must be zero, so that they may count one day.
        let side = PreferredSide::from_raw(call.side).ok_or(EINVAL)?;
        let keep = match call.keep {
            0 => false,
            1 => true,
            _ => return Err(EINVAL),
        };
        let window = window_bounds(call.window_least, call.window_most)?;
        let counts = |flag, is_zero: bool| {
            let counts = flags.contains(flag);
            if counts || is_zero {
                Ok(counts)
            } else {
                Err(EINVAL)
            }
        };
        let side = counts(AdviseFlags::SIDE, side == PreferredSide::None)?.then_some(match side {
            PreferredSide::None => None,
            PreferredSide::Device => Some(Side::Device),
            PreferredSide::System => Some(Side::System),
        });
        Ok(Self {
            side,
            keep: counts(AdviseFlags::KEEP, !keep)?.then_some(keep),
            window: counts(AdviseFlags::WINDOW, window.is_none())?.then_some(window),
            touches: counts(AdviseFlags::TOUCHES, call.touches == 0)?
                .then_some((call.touches != 0).then_some(call.touches)),
        })
    }

    fn apply(&self, advice: &mut Advice) {
        advice.side = self.side.unwrap_or(advice.side);
        advice.keep = self.keep.unwrap_or(advice.keep);
        advice.window = self.window.unwrap_or(advice.window);
        advice.touches = self.touches.unwrap_or(advice.touches);
    }
}

/// Bounds of a fault's window, bytes; `None` for the driver's own choice.
fn window_bounds(least: u32, most: u32) -> Result<Option<WindowBounds>> {
    let (least, most) = (least as usize, most as usize);
    if least == 0 && most == 0 {
        return Ok(None);
    }
    let fits = |bytes: usize| bytes.is_power_of_two() && (PAGE_SIZE..=WINDOW_MOST).contains(&bytes);
    if fits(least) && fits(most) && least <= most {
        Ok(Some(WindowBounds { least, most }))
    } else {
        Err(EINVAL)
    }
}

impl Call<'_> {
    pub(super) fn advise(&self, mut argument: Argument<Advise>) -> Result {
        let call = argument.get_mut();
        let change = Change::new(call)?;
        let range = page_range(call.start, call.end)?;
        let process = self.process(call.pid)?;
        let mm = process.mm();
        let known = self.device.spaces().of(mm)?;
        // Before the mmap lock is taken.
        let snapshot = KBox::pin_init(Snapshot::new(mm), GFP_KERNEL)?;
        let mut entries = KVVec::from_elem(0, BATCH_PAGES, GFP_KERNEL)?;

        let begins = {
            let guard = MmapReadGuard::lock(mm, || false)?;
            expect_mapped(&guard, range.clone())?;
            let may_pin = process.memlock_limit();
            let apply = |advice: &mut Advice| change.apply(advice);
            known.watcher().advise(range.clone(), may_pin, apply)?
        };
        if !begins.is_empty() {
            // What the device has mapped it uses without asking.
            self.device.contexts().numbers.advised(mm, &begins);
        }
        match change.keep {
            // What is on the device already.
            Some(keep) => self.keep(mm, &snapshot, range, keep, &mut entries),
            None => Ok(()),
        }
    }

    /// Marks the device pages of `range`, under one hold of the mmap lock for each part. What is
    /// unmapped meanwhile is not looked at.
    ///
    /// # Errors
    ///
    /// `ERESTARTSYS`: a signal came. To begin again does no harm.
    fn keep(
        &self,
        mm: &MmWithUser,
        snapshot: &Snapshot,
        range: Range<usize>,
        keep: bool,
        entries: &mut [usize],
    ) -> Result {
        let memory = self.device.memory();
        let mut address = range.start;
        while address < range.end {
            if signal_waits() {
                return Err(ERESTARTSYS);
            }
            let guard = MmapReadGuard::lock(mm, || false)?;
            address = next_populated(&guard, address..range.end);
            let vma = match Vma::find(&guard, address) {
                Some(vma) if address < range.end => vma,
                _ => return Ok(()),
            };
            address = address.max(vma.start());
            let most = address.saturating_add(entries.len() << PAGE_SHIFT);
            let part = address..range.end.min(vma.end()).min(most);
            if part.is_empty() {
                return Ok(());
            }
            address = part.end;
            // What it cannot see has no page of ours, but for PROT_NONE: its pages are not spared
            // until they have been away.
            snapshot.look(&guard, part, memory.owner(), entries, |_, place| {
                if let Place::Device(pfn) = place {
                    if let Some(index) = memory.index_of_pfn(pfn) {
                        self.device.pages().keep(index..index + 1, keep);
                    }
                }
            })?;
        }
        Ok(())
    }

    pub(super) fn prefetch(
        &self,
        session: &OpenSession,
        mut argument: Argument<Prefetch>,
    ) -> Result {
        let call = argument.get_mut();
        let direction = match call.direction {
            0 => None,
            other => Some(Direction::from_raw(other).ok_or(EINVAL)?),
        };
        if call.flags & !MigrateFlags::ALL.0 != 0
            || call.reserved != 0
            || (direction == Some(Direction::ToSystem) && call.flags != 0)
        {
            return Err(EINVAL);
        }
        let range = page_range(call.start, call.end)?;
        if direction != Some(Direction::ToSystem) {
            self.device.engine().hibernation.wait_until_over()?;
        }
        let process = self.process(call.pid)?;
        let entry = self.entry(&process)?;
        let args = self.args(
            direction.unwrap_or(Direction::ToDevice),
            MigrateFlags(call.flags),
            Trigger::Prefetch,
            entry.account()?,
        );
        let known = self.device.spaces().of(process.mm())?;
        let job = Job {
            process,
            known,
            entry,
            range,
            direction,
            args,
        };
        call.id = session.prefetches.begin(&session.session, job)?;
        argument.write()
    }

    pub(super) fn evict(&self, mut argument: Argument<Evict>) -> Result {
        let call = argument.get_mut();
        if call.flags != 0 {
            return Err(EINVAL);
        }
        if call.bytes != 0 {
            if call.start != 0 || call.end != 0 || call.pid != 0 {
                return Err(EINVAL);
            }
            let bytes = usize::try_from(call.bytes)?;
            if bytes % PAGE_SIZE != 0 {
                return Err(EINVAL);
            }
            if !may_touch_all() {
                return Err(EPERM);
            }
            let ticket = self.device.pages().ticket();
            let moved = evict::some(self.device, bytes >> PAGE_SHIFT, ticket);
            call.bytes_evicted = (moved << PAGE_SHIFT) as u64;
            return argument.write();
        }
        let range = page_range(call.start, call.end)?;
        let process = self.process(call.pid)?;
        let args = self.args(
            Direction::ToSystem,
            MigrateFlags::default(),
            Trigger::Eviction,
            AccountId::NONE,
        );
        let mut tally = Tally::default();
        let way = RangeProgress::of(range.clone(), || {
            let target = Target {
                process: &process,
                known: None,
                is_stopped: &|| false,
            };
            let end = range.end;
            migrate(self.device, target, range, end, args, &mut tally)
        })?;
        call.bytes_evicted = tally.moved << PAGE_SHIFT;
        call.pages_skipped = tally.skipped;
        argument.write()?;
        way.result(&process)
    }

    pub(super) fn limit(&self, mut argument: Argument<Limit>) -> Result {
        let call = argument.get_mut();
        let flags = LimitFlags(call.flags);
        if flags.0 & !LimitFlags::ALL.0 != 0 {
            return Err(EINVAL);
        }
        let process = self.process(call.pid)?;
        let entry = self.entry(&process)?;
        if flags.contains(LimitFlags::SET) {
            let pages = match call.limit_bytes {
                NO_LIMIT => u64::MAX,
                bytes => bytes >> PAGE_SHIFT,
            };
            let pool = self.device.pool();
            if !pool.has_limits() {
                return Err(EOPNOTSUPP);
            }
            pool.processes()
                .set_limit(&entry, pages, may_raise_limits)?;
        }
        call.limit_bytes = match entry.limit() {
            u64::MAX => NO_LIMIT,
            pages => pages << PAGE_SHIFT,
        };
        call.resident_bytes = entry.pages() << PAGE_SHIFT;
        argument.write()
    }
}

/// Waits for a prefetch, which needs no device.
pub(super) fn wait(session: &OpenSession, mut argument: Argument<Wait>) -> Result {
    let call = argument.get_mut();
    let flags = WaitFlags(call.flags);
    if flags.0 & !WaitFlags::ALL.0 != 0 {
        return Err(EINVAL);
    }
    let begun = session.prefetches.get(call.id)?;
    if flags.contains(WaitFlags::CANCEL) {
        begun.cancel();
    }
    let report = begun.wait(call.timeout_ms)?;
    call.state = report.state as u32;
    call.error = report.error;
    call.next = report.next as u64;
    call.pages_moved = report.tally.moved;
    call.pages_skipped = report.tally.skipped;
    let id = call.id;
    argument.write()?;
    // Only what was told may be forgotten.
    if report.state != PrefetchState::Running {
        session.prefetches.forget(id);
    }
    Ok(())
}

/// Checks that all of `range` is mapped.
fn expect_mapped(guard: &MmapReadGuard<'_>, range: Range<usize>) -> Result {
    let mut address = range.start;
    while address < range.end {
        match Vma::find(guard, address) {
            Some(vma) if vma.start() <= address => address = vma.end(),
            _ => return Err(ENOMEM),
        }
    }
    Ok(())
}
