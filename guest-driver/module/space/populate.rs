// SPDX-License-Identifier: GPL-2.0-only

//! Maps ranges before any job touches them.

use super::{
    access::{
        access_to,
        result_of, //
    },
    exclusive::make_exclusive,
    handle::Space,
    table::{
        Pages,
        Spare,
        GRANULE_BYTES, //
    },
    view::Followed, //
};
use crate::{
    device::Device,
    sys::address_space::{
        mirror::{
            Seen,
            SeenPage,
            Sequence,
            Wanted, //
        },
        mmap_lock::MmapReadGuard, //
    }, //
};
use core::ops::Range;
use kernel::{
    mm::MmWithUser,
    page::PAGE_SIZE,
    prelude::*,
    time::{
        Delta,
        Instant,
        Monotonic, //
    }, //
};

/// How long a range is tried that changes all the time.
const PATIENCE: Delta = Delta::from_millis(1000);

impl Space {
    /// Faults every page of `range` in, for reading or for writing, and maps it. With `unlocked`, faults may wait
    /// for what the process does, as for userfaultfd.
    ///
    /// # Errors
    ///
    /// `EFAULT` a page is not mapped or must not be read, `EPERM` it must not be written, `EBUSY` the range
    /// changes all the time, `ENOMEM`, `EINTR`, `EINVAL` the range is not page aligned, `ESRCH` the process has
    /// ended, `ENODEV`, `EIO`.
    pub(crate) fn fault_in(&self, range: Range<usize>, write: bool, unlocked: bool) -> Result {
        let wanted = match write {
            true => Wanted::Write,
            false => Wanted::Read,
        };
        self.each_part(range, |device, mm, part| {
            let part_of = Part {
                followed: &self.followed,
                device,
                mm,
                part,
                unlocked,
            };
            part_of.map(wanted.entry(), |_| true).map(|_| 0)
        })
        .map(|_| ())
    }

    /// Maps what `range` has on the device, and faults nothing in. Returns how many pages that are.
    ///
    /// # Errors
    ///
    /// As [`Space::fault_in`], but neither `EFAULT` nor `EPERM`.
    pub(crate) fn map_resident(&self, range: Range<usize>) -> Result<usize> {
        self.each_part(range, |device, mm, part| {
            let part_of = Part {
                followed: &self.followed,
                device,
                mm,
                part,
                unlocked: false,
            };
            part_of.map(0, |page| device.memory().index_of_pfn(page.pfn()).is_some())
        })
    }

    /// Gives the device every page of `range` for itself, until a CPU touches it. Returns how many pages
    /// that are.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` the memory is not private; otherwise as [`Space::fault_in`].
    pub(crate) fn make_exclusive(&self, range: Range<usize>) -> Result<usize> {
        self.each_part(range, |device, mm, part| {
            let mut count = 0;
            for page in part.step_by(PAGE_SIZE) {
                count += make_exclusive(&self.followed, device, mm, page, None)?;
            }
            Ok(count)
        })
    }

    /// Calls `map` with each part of `range` that is in one granule, and adds up what it returns.
    fn each_part(
        &self,
        range: Range<usize>,
        map: impl Fn(&Device, &MmWithUser, Range<usize>) -> Result<usize>,
    ) -> Result<usize> {
        kernel::task::might_sleep();
        if (range.start | range.end) % PAGE_SIZE != 0 || range.start >= range.end {
            return Err(EINVAL);
        }
        let mm = self.followed.mm().mmget_not_zero().ok_or(ESRCH)?;
        let (mut start, mut count) = (range.start, 0);
        while start < range.end {
            let device = self.pool().attached().ok_or(ENODEV)?;
            self.view().ensure_context(&device)?;
            let next = (start / GRANULE_BYTES + 1).saturating_mul(GRANULE_BYTES);
            let end = next.min(range.end);
            count += map(&device, &mm, start..end)?;
            start = end;
        }
        Ok(count)
    }
}

/// A part of a range, within a granule.
struct Part<'a> {
    followed: &'a Followed,
    device: &'a Device,
    mm: &'a MmWithUser,
    part: Range<usize>,
    unlocked: bool,
}

impl Part<'_> {
    /// Looks at the pages, faults them in as `entry` says, and maps those that `is_meant`. Returns how many.
    fn map(&self, entry: usize, is_meant: impl Fn(SeenPage) -> bool) -> Result<usize> {
        let pages = self.part.len() / PAGE_SIZE;
        let mut entries = KVVec::from_elem(entry, pages, GFP_KERNEL)?;
        let began = Instant::<Monotonic>::now();
        loop {
            match self.attempt(&mut entries, &is_meant) {
                Err(error) if error == EBUSY && began.elapsed() < PATIENCE => {
                    entries.iter_mut().for_each(|slot| *slot = entry);
                }
                result => return result,
            }
        }
    }

    fn look(&self, entries: &mut [usize]) -> Result<Sequence> {
        if self.unlocked {
            return (self.followed).fault_unlocked(self.mm, self.part.clone(), entries);
        }
        let sequence = self.followed.begin();
        let guard = MmapReadGuard::lock(self.mm, || self.device.link().is_stopping())?;
        self.followed
            .fault(&guard, self.part.clone(), sequence, entries)?;
        Ok(sequence)
    }

    fn attempt(
        &self,
        entries: &mut [usize],
        is_meant: &impl Fn(SeenPage) -> bool,
    ) -> Result<usize> {
        let mut spare = Spare::new()?;
        let sequence = self.look(entries)?;
        let view = self.followed.mirrored();
        let mut seen = entries.iter().map(|&entry| match Seen::of(entry) {
            Seen::Page(page) if is_meant(page) => Some((page, access_to(self.device, page))),
            _ => None,
        });
        let mut table = view.table.lock();
        if self.followed.has_changed(sequence) {
            return Err(EBUSY);
        }
        let pages = Pages {
            start: self.part.start,
            seen: &mut seen,
        };
        let (link, memory) = (self.device.link(), self.device.memory());
        let (count, mapped) = table.map(link, view.context, memory, pages, None, &mut spare);
        drop(table);
        result_of(mapped).map(|()| count)
    }
}
