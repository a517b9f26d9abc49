// SPDX-License-Identifier: GPL-2.0-only

//! A part of a mirror, for a moment.
//!
//! A change anywhere in the address space counts for [`Mirror::has_changed`], so whoever looks at some pages while others
//! change all the time begins again and again. A [`MirrorPart`] has a notifier of its own, which counts only what changes in
//! its range.
//!
//! Both notifiers hear of a change of the range, in any order, and each takes the range away from the device. So what was
//! mapped between the two is taken away by the second, and what has not been mapped by then is not: the part has changed.
//!
//! # Lock order
//!
//! As [`Mirror`]. Dropping a part waits for invalidations, so the caller must not hold any of the locks.

use super::{
    begin,
    Cause,
    Invalidation,
    Mirror,
    Mirrored,
    Sequence, //
};
use crate::sys::{
    address_space::{
        interval,
        locked::MmapLocked, //
    },
    bindings, //
};
use core::ops::Range;
use kernel::{
    container_of,
    mm::MmWithUser,
    prelude::*,
    types::Opaque, //
};

/// See the module.
///
/// # Invariants
///
/// `notifier` is inserted from initialisation to drop, for `range` of the address space of `mirror`.
///
/// # Examples
///
/// ```ignore
/// let part = KBox::pin_init(mirror.part(&mm, range), GFP_KERNEL)?;
/// let sequence = part.begin();
/// part.fault(&guard, range, sequence, &mut entries)?;
/// let mut device = mirror.mirrored().device.lock();
/// if part.has_changed(sequence) {
///     return Err(EAGAIN);
/// }
/// ```
#[pin_data(PinnedDrop)]
pub(crate) struct MirrorPart<'a, M: Mirrored> {
    #[pin]
    notifier: Opaque<bindings::mmu_interval_notifier>,
    mirror: &'a Mirror<M>,
    range: Range<usize>,
}

impl<M: Mirrored> Mirror<M> {
    /// A part of the mirror, whose address space `mm` is.
    ///
    /// # Errors
    ///
    /// `EINVAL`: it is not, or the range is empty.
    pub(crate) fn part<'a>(
        &'a self,
        mm: &'a MmWithUser,
        range: Range<usize>,
    ) -> impl PinInit<MirrorPart<'a, M>, Error> + 'a {
        let bounds = range.clone();
        try_pin_init!(MirrorPart {
            // What is called uses them.
            mirror: self,
            range,
            notifier <- Opaque::try_ffi_init(move |slot: *mut bindings::mmu_interval_notifier| {
                if mm.as_raw() != self.mm().as_raw() {
                    return Err(EINVAL);
                }
                // SAFETY: `slot` is pinned until drop removes it, and so is what it calls. The mirror outlives it.
                unsafe { interval::insert_range(slot, mm, bounds, &MirrorPart::<M>::OPS) }
            }),
        })
    }
}

impl<M: Mirrored> MirrorPart<'_, M> {
    const OPS: bindings::mmu_interval_notifier_ops = bindings::mmu_interval_notifier_ops {
        invalidate: Some(Self::invalidate),
        invalidate_start: None,
        invalidate_finish: None,
    };

    /// As [`Mirror::begin`].
    pub(crate) fn begin(&self) -> Sequence {
        // SAFETY: By the type invariant.
        unsafe { begin(&self.notifier) }
    }

    /// As [`Mirror::has_changed`], for the range alone.
    pub(crate) fn has_changed(&self, sequence: Sequence) -> bool {
        // SAFETY: By the type invariant.
        unsafe { bindings::vhmm_notifier_has_changed(self.notifier.get(), sequence.0) }
    }

    /// As [`Mirror::fault`], where `sequence` is of the part.
    ///
    /// # Errors
    ///
    /// As there; `EINVAL`: the range is not in the part.
    pub(crate) fn fault(
        &self,
        guard: &dyn MmapLocked,
        range: Range<usize>,
        sequence: Sequence,
        entries: &mut [usize],
    ) -> Result {
        if range.start < self.range.start || range.end > self.range.end {
            return Err(EINVAL);
        }
        // SAFETY: By the type invariant.
        unsafe { (self.mirror).fault_with(&self.notifier, guard, range, sequence, entries) }
    }

    /// Called by the kernel when a part of the range changes.
    ///
    /// # Safety
    ///
    /// `notifier` must be the field of a `Self` and inserted; `range` must be valid.
    unsafe extern "C" fn invalidate(
        notifier: *mut bindings::mmu_interval_notifier,
        range: *const bindings::mmu_notifier_range,
        seq: usize,
    ) -> bool {
        // SAFETY: The notifier is that of a `Self`, which lives until the notifier is removed,
        // and that waits for this function.
        let this = unsafe { &*container_of!(Opaque::cast_from(notifier), Self, notifier) };
        // SAFETY: The kernel passes a valid range.
        let invalidation = unsafe { Invalidation::new(this.mirror, &this.notifier, range, seq) };
        match invalidation.cause {
            // The page stays what it was seen to be, and the mirror itself is told of it.
            Cause::OwnExclusive => true,
            _ => this.mirror.mirrored().invalidate(&invalidation),
        }
    }
}

#[pinned_drop]
impl<M: Mirrored> PinnedDrop for MirrorPart<'_, M> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariant. The caller holds no lock that `invalidate` takes.
        unsafe { bindings::mmu_interval_notifier_remove(self.notifier.get()) };
    }
}
