// SPDX-License-Identifier: GPL-2.0-only

//! Whether the kernel tracks writes to memory, or is about to move it, and which device pages stand in
//! its way.

use crate::sys::{
    address_space::{
        locked::MmapLocked,
        mm::{
            Vma,
            VmaObstacle, //
        }, //
    },
    bindings,
    device_memory::{
        owner::Owner,
        placement::Placement, //
    }, //
};
use core::ops::Range;
use kernel::{
    mm::Mm,
    task::Task, //
};

/// Whether the current task is in the ioctl `UFFDIO_MOVE`.
pub(super) fn task_moves_pages() -> bool {
    // SAFETY: Has no requirements.
    unsafe { bindings::vhmm_task_moves_pages() }
}

/// Whether the current task has the mmap lock of `mm` for writing.
pub(super) fn task_locked_for_writing(mm: &Mm) -> bool {
    // SAFETY: The structure is valid.
    unsafe { bindings::vhmm_task_locked_for_writing(mm.as_raw()) }
}

/// Whether the task has a userfaultfd open.
pub(super) fn has_userfaultfd(task: &Task) -> bool {
    // SAFETY: The task is valid.
    unsafe { bindings::vhmm_task_has_userfaultfd(task.as_ptr()) }
}

/// The parts of a range in which writes are tracked, each within one mapping, and where its pages may
/// be in system memory.
pub(super) struct TrackedParts<'a> {
    guard: &'a dyn MmapLocked,
    range: Range<usize>,
}

impl<'a> TrackedParts<'a> {
    pub(super) fn new(guard: &'a dyn MmapLocked, range: Range<usize>) -> Self {
        Self { guard, range }
    }
}

impl Iterator for TrackedParts<'_> {
    type Item = (Range<usize>, Option<Placement>);

    fn next(&mut self) -> Option<Self::Item> {
        while !self.range.is_empty() {
            let vma = Vma::find(self.guard, self.range.start)
                .filter(|vma| vma.start() < self.range.end)?;
            let part = self.range.start.max(vma.start())..self.range.end.min(vma.end());
            self.range.start = part.end;
            // What has lost its access can have pages on the device from before.
            let has_device_pages = matches!(vma.obstacle(), None | Some(VmaObstacle::NoAccess));
            if has_device_pages && vma.tracks_writes() {
                let placement = Placement::matters().then(|| Placement::of_mapping(&vma));
                return Some((part, placement.flatten()));
            }
        }
        None
    }
}

/// A range of an address space whose page tables stay, but for those of the last level: the kernel has
/// called the driver with a lock held that keeps them, and waits for its return.
///
/// # Invariants
///
/// The page tables of `range` stay for `'a`.
pub(crate) struct KeptTables<'a> {
    mm: &'a Mm,
    range: Range<usize>,
}

impl<'a> KeptTables<'a> {
    /// # Safety
    ///
    /// The page tables of `range`, but for those of the last level, must stay for `'a`.
    pub(super) unsafe fn new(mm: &'a Mm, range: Range<usize>) -> Self {
        // INVARIANT: By the safety requirement.
        Self { mm, range }
    }

    /// How many bytes the range has.
    pub(crate) fn len(&self) -> usize {
        self.range.len()
    }

    /// Leaves out what is before `start`.
    pub(crate) fn begin_at(&mut self, start: usize) {
        // INVARIANT: A part of the range from before.
        self.range.start = self.range.start.max(start);
    }

    /// Looks for device pages of `owner` that single entries in the range map, and stores their frames
    /// until `frames` is full.
    pub(crate) fn device_pages(&self, owner: Owner, frames: &mut [usize]) -> Found {
        let mut end = self.range.start;
        let mut is_migrating = false;
        let most = u32::try_from(frames.len()).unwrap_or(u32::MAX);
        // SAFETY: The address space is valid, and its page tables stay by the type invariant. An owner is
        // the address of a pagemap. There is room for as many frames.
        let pages = unsafe {
            bindings::vhmm_mm_device_pages(
                self.mm.as_raw(),
                &mut end,
                self.range.end,
                owner.as_raw().cast(),
                frames.as_mut_ptr(),
                most,
                &mut is_migrating,
            )
        };
        Found {
            end,
            pages: pages as usize,
            is_migrating,
        }
    }
}

/// What was found of a range.
pub(crate) struct Found {
    /// Up to where was looked.
    pub(crate) end: usize,
    /// How many device pages were found.
    pub(crate) pages: usize,
    /// Whether pages are being migrated there.
    pub(crate) is_migrating: bool,
}
