// SPDX-License-Identifier: GPL-2.0-only

//! Migrates the memory that a file mirrors, by the same way as requests of `/dev/hmmN`.

use super::{
    access::OnMiss,
    command::{
        Argument,
        Outcome, //
    },
    mirror_file::MirrorFile, //
};
use crate::{
    device::Device,
    migration::{
        evict,
        range::{
            migrate,
            Target, //
        },
        MigrateArgs,
        Tally, //
    },
    pool::AccountId,
    sys::address_space::{
        mm::{
            Vma,
            VmaObstacle, //
        },
        mmap_lock::MmapReadGuard,
        process::{
            may_touch_all,
            Process, //
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
    page::PAGE_SIZE,
    prelude::*,
    sync::atomic::ordering::Relaxed, //
};

/// How often pages are tried that another task has isolated or refers to for a moment.
const ATTEMPTS: u32 = 5;

impl MirrorFile {
    /// Migrates the range to the device, which then reads it without a fault.
    ///
    /// # Errors
    ///
    /// As [`MirrorFile::migrate`] and [`MirrorFile::read`]; `ENOENT` a page is not on the device.
    pub(super) fn migrate_and_read(&self, device: &Device, argument: &Argument) -> Result<Outcome> {
        self.migrate(device, argument.range(), Direction::ToDevice)?;
        self.space.map_resident(argument.range())?;
        self.read(argument, OnMiss::Fail)
    }

    /// Migrates `range` in one direction; to the device also holes.
    ///
    /// # Errors
    ///
    /// `EINVAL` the address space has ended, or a part of the range has no mapping, or one that cannot
    /// be read or migrated; `ERESTARTSYS` a signal came; `ENOMEM`; `ENODEV`.
    pub(super) fn migrate(
        &self,
        device: &Device,
        range: Range<usize>,
        direction: Direction,
    ) -> Result<Outcome> {
        let process = self.process()?;
        check(process.mm(), range.clone())?;
        let refuse_huge = self.refuse_huge.load(Relaxed);
        self.refuse_huge.store(false, Relaxed);
        let tally = self.attempt(device, &process, range.clone(), direction, refuse_huge)?;
        let (mut pages, mut was_busy) = (tally.moved, is_busy(&tally));
        for _ in 1..ATTEMPTS {
            if !was_busy {
                break;
            }
            let tally = self.attempt(device, &process, range.clone(), direction, false)?;
            (pages, was_busy) = (pages + tally.moved, is_busy(&tally));
        }
        Ok(Outcome {
            pages: usize::try_from(pages)?,
            faults: 0,
        })
    }

    /// Returns what moved, and why other pages did not.
    fn attempt(
        &self,
        device: &Device,
        process: &Process,
        range: Range<usize>,
        direction: Direction,
        refuse_huge: bool,
    ) -> Result<Tally> {
        let pool = device.pool();
        // Its account stays open as long as pages are charged to it.
        let (known, entry) = match direction {
            Direction::ToDevice => {
                device.engine().hibernation.wait_until_over()?;
                let entry = pool.processes().of(process.id()?)?;
                (Some(device.spaces().of(process.mm())?), Some(entry))
            }
            Direction::ToSystem => (device.spaces().find(process.mm()), None),
        };
        let account = entry
            .as_ref()
            .map_or(Ok(AccountId::NONE), |entry| entry.account())?;
        let flags = match direction {
            Direction::ToDevice => MigrateFlags::POPULATE,
            Direction::ToSystem => MigrateFlags::default(),
        };
        let args = MigrateArgs {
            direction,
            flags,
            huge: *crate::module_parameters::huge_pages.value_ref() != 0,
            refuse_huge,
            ticket: device.pages().ticket(),
            trigger: Trigger::User,
            account,
        };
        let target = Target {
            process,
            known,
            is_stopped: &|| false,
        };
        let (mut tally, end) = (Tally::default(), range.end);
        let reached = migrate(device, target, range, end, args, &mut tally)?;
        if reached < end {
            // What has moved is passed when the call begins anew.
            return Err(ERESTARTSYS);
        }
        Ok(tally)
    }

    /// Evicts what is on the device, of whichever process. What is in use there stays.
    ///
    /// # Errors
    ///
    /// `EPERM`: the caller may not deal with the memory of every process (`CAP_SYS_PTRACE`).
    pub(super) fn release(&self, device: &Device) -> Result<Outcome> {
        if !may_touch_all() {
            return Err(EPERM);
        }
        let ticket = device.pages().ticket();
        let resident = usize::try_from(device.pages().resident_bytes())? / PAGE_SIZE;
        let pages = evict::some(device, resident, ticket);
        Ok(Outcome { pages, faults: 0 })
    }
}

/// Whether pages stayed where they were because of what another task was doing with them at that moment.
fn is_busy(tally: &Tally) -> bool {
    [
        SkipReason::Busy,
        SkipReason::Pinned,
        SkipReason::LostRace, //
    ]
    .iter()
    .any(|&reason| tally.skipped[reason as usize] > 0)
}

/// Whether the kernel would migrate the whole range: it has mappings everywhere, all of which can be
/// read and have pages of the usual kind.
fn check(mm: &MmWithUser, range: Range<usize>) -> Result {
    let guard = MmapReadGuard::lock(mm, || false)?;
    let mut address = range.start;
    while address < range.end {
        let vma = Vma::find(&guard, address)
            .filter(|vma| vma.start() <= address)
            .ok_or(EINVAL)?;
        match vma.obstacle() {
            None | Some(VmaObstacle::Shared) => address = vma.end(),
            Some(VmaObstacle::Hugetlb | VmaObstacle::Special | VmaObstacle::NoAccess) => {
                return Err(EINVAL);
            }
        }
    }
    Ok(())
}

#[kunit_tests(virtio_hmm_dmirror_migrate)]
mod tests {
    use super::*;
    use crate::sys::services::kunit::TestMemory;

    #[test]
    fn a_range_has_readable_mappings_everywhere() -> Result {
        let memory = TestMemory::new(2)?;
        let (mm, range) = (memory.mm()?, memory.range());
        check(&mm, range.clone())?;
        let hidden = TestMemory::without_access(1)?;
        assert!(check(&mm, hidden.range()) == Err(EINVAL));
        check(&mm, TestMemory::shared(1)?.range())?;
        memory.unmap()?;
        assert!(check(&mm, range) == Err(EINVAL));
        Ok(())
    }
}
