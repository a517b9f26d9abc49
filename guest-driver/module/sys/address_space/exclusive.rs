// SPDX-License-Identifier: GPL-2.0-only

//! Addresses whose pages no other process maps, and at which no other page is looked for.
//!
//! The kernel looks for a page at every address that the reverse mapping tells, with the lock of the
//! reverse mapping, and announces each of them as one that is about to be cleared. That can be an
//! address from which `mremap()` moved the page away (`MREMAP_DONTUNMAP` keeps the mapping there) and
//! where another page is by now. If that announcement waited for a migration, and the migration for
//! the lock of the reverse mapping, to split a page or to map one again, neither would end. So such
//! addresses count as shared.
//!
//! A mapping without pages is alone. It could get its first page, and with that the anon_vma of a
//! neighbour from which pages were moved away, while a hold lasts; the next hold sees that.

use crate::sys::address_space::{
    locked::MmapLocked, //
    mm::Vma,
};
use core::{
    marker::PhantomData,
    ops::Range, //
};
use kernel::{
    mm::MmWithUser,
    prelude::*, //
};

/// Mappings that are looked at, at most: the mmap lock is held, so the number must be bounded.
const MAPPINGS: usize = 64;

/// A range of an address space of which no page is mapped by another process and in which no other
/// page is looked for. It stays so while the mmap lock is held.
///
/// # Invariants
///
/// The mmap lock of `mm` is held for `'a`, and each mapping of the range is exclusive
/// ([`Vma::is_exclusive`]) and alone ([`Vma::is_alone`]).
pub(crate) struct Exclusive<'a> {
    mm: &'a MmWithUser,
    range: Range<usize>,
    _lock: PhantomData<&'a dyn MmapLocked>,
}

impl<'a> Exclusive<'a> {
    /// `range`, if it lies within `vma` and that is exclusive.
    pub(crate) fn of(vma: &Vma<'a>, range: Range<usize>) -> Option<Self> {
        let lies_within = vma.start() <= range.start && range.end <= vma.end();
        // INVARIANT: The mapping's lock is held for `'a`, and it was just asked.
        (lies_within && vma.is_exclusive() && vma.is_alone(&range)).then(|| Self {
            mm: vma.mm(),
            range,
            _lock: PhantomData,
        })
    }

    /// The address space.
    pub(in crate::sys) fn mm(&self) -> &'a MmWithUser {
        self.mm
    }

    /// The range.
    pub(in crate::sys) fn range(&self) -> Range<usize> {
        self.range.clone()
    }
}

/// Whether other processes map pages of the front of a range, whose mappings are alike.
pub(crate) enum Sharing<'a> {
    /// No other process maps its pages.
    Exclusive(Exclusive<'a>),
    /// Others may.
    Shared(Range<usize>),
}

impl<'a> Sharing<'a> {
    /// The front of `range`, as far as its mappings are alike, or up to where too many were looked
    /// at. What is not mapped is like everything. It is not empty unless `range` is.
    ///
    /// # Examples
    ///
    /// ```ignore
    /// let guard = MmapReadGuard::lock(&mm, || false)?;
    /// let hold = match Sharing::of_front(&guard, range) {
    ///     Sharing::Exclusive(front) => watch.hold(front, memory.owner()),
    ///     // Its huge pages are split.
    ///     Sharing::Shared(_) => None,
    /// };
    /// ```
    pub(crate) fn of_front(guard: &'a dyn MmapLocked, range: Range<usize>) -> Self {
        let (mut end, mut is_exclusive) = (range.start, None);
        for _ in 0..MAPPINGS {
            let vma = Vma::find(guard, end).filter(|vma| vma.start() < range.end);
            let Some(vma) = vma.filter(|_| end < range.end) else {
                end = range.end;
                break;
            };
            let part = end.max(vma.start())..vma.end().min(range.end);
            let is_this = vma.is_exclusive() && vma.is_alone(&part);
            if *is_exclusive.get_or_insert(is_this) != is_this {
                end = part.start;
                break;
            }
            end = part.end;
        }
        let range = range.start..end;
        if is_exclusive.unwrap_or(true) {
            // INVARIANT: The guard holds the lock, and each mapping was just asked.
            Self::Exclusive(Exclusive {
                mm: guard.mm(),
                range,
                _lock: PhantomData,
            })
        } else {
            Self::Shared(range)
        }
    }

    /// Where it ends.
    pub(crate) fn end(&self) -> usize {
        match self {
            Self::Exclusive(exclusive) => exclusive.range.end,
            Self::Shared(range) => range.end,
        }
    }
}

#[kunit_tests(virtio_hmm_exclusive)]
mod tests {
    use super::*;
    use crate::sys::{
        address_space::mmap_lock::MmapReadGuard,
        services::kunit::TestMemory, //
    };
    use kernel::page::PAGE_SIZE;

    #[test]
    fn memory_of_one_process_is_exclusive() -> Result {
        let memory = TestMemory::new(3)?;
        memory.fill()?;
        let (mm, range) = (memory.mm()?, memory.range());
        let guard = MmapReadGuard::lock(&mm, || false)?;
        let front = Sharing::of_front(&guard, range.clone());
        assert_eq!(front.end(), range.end);
        let Sharing::Exclusive(front) = front else {
            return Err(EINVAL);
        };
        assert!(front.range() == range && front.mm().as_raw() == mm.as_raw());
        Ok(())
    }

    #[test]
    fn what_is_not_mapped_is_like_everything() -> Result {
        let memory = TestMemory::new(1)?;
        let (mm, range) = (memory.mm()?, memory.range());
        let guard = MmapReadGuard::lock(&mm, || false)?;
        let wide = range.start - PAGE_SIZE..range.end + PAGE_SIZE;
        assert_eq!(Sharing::of_front(&guard, wide.clone()).end(), wide.end);
        assert_eq!(
            Sharing::of_front(&guard, range.start..range.start).end(),
            range.start
        );
        Ok(())
    }

    #[test]
    fn a_range_must_be_one_of_the_mapping() -> Result {
        let memory = TestMemory::new(2)?;
        let (mm, range) = (memory.mm()?, memory.range());
        let guard = MmapReadGuard::lock(&mm, || false)?;
        let vma = Vma::find(&guard, range.start).ok_or(EFAULT)?;
        assert!(Exclusive::of(&vma, range.clone()).is_some());
        assert!(Exclusive::of(&vma, range.start..vma.end() + PAGE_SIZE).is_none());
        assert!(Exclusive::of(&vma, vma.start() - PAGE_SIZE..range.end).is_none());
        Ok(())
    }
}
