// SPDX-License-Identifier: GPL-2.0-only

//! On which NUMA nodes an address space's pages may be, for tasks that allocate them in its place:
//! workers, other processes and evictions.
//!
//! The kernel allocates by the memory policy of the mapping, else by that of the calling task, and
//! within the nodes that the cpuset of the calling task allows. That is wrong where the caller is
//! not the owner of the memory.
//!
//! C header: [`include/linux/mempolicy.h`](srctree/include/linux/mempolicy.h)

use crate::sys::{
    address_space::mm::Vma,
    bindings, //
};
use core::mem::MaybeUninit;

/// The nodes that the owner of an address space may use, and in which order it uses them.
pub(crate) struct Placement(bindings::vhmm_placement);

impl Clone for Placement {
    fn clone(&self) -> Self {
        // SAFETY: The structure is plain data: sets and numbers of nodes, without references.
        Self(unsafe { core::ptr::read(&self.0) })
    }
}

impl Placement {
    /// Whether the system has more than one node.
    pub(crate) fn matters() -> bool {
        // SAFETY: Has no requirements.
        unsafe { bindings::vhmm_has_nodes() }
    }

    /// What may be used for pages of `vma`: its own policy counts before that of the owner. `None` if
    /// any node will do. The policies of single threads are not known to others: that of the thread
    /// which stands for the process counts.
    pub(crate) fn of_mapping(vma: &Vma<'_>) -> Option<Self> {
        let mut placement = MaybeUninit::uninit();
        // SAFETY: Both are valid, and the mmap lock is held, which `Vma` proves. The C function fills
        // the structure if it returns true.
        unsafe {
            bindings::vhmm_placement_of(vma.mm().as_raw(), vma.as_raw(), placement.as_mut_ptr())
                .then(|| Self(placement.assume_init()))
        }
    }

    /// The same, but `None` also for a mapping of the address space that the caller runs in, for
    /// which the kernel's own choice is right.
    pub(crate) fn of_foreign(vma: &Vma<'_>) -> Option<Self> {
        // SAFETY: The address space is valid.
        match unsafe { bindings::vhmm_mm_is_foreign(vma.mm().as_raw()) } {
            true => Self::of_mapping(vma),
            false => None,
        }
    }

    /// A page with one reference, or null.
    pub(super) fn alloc(&mut self) -> *mut bindings::page {
        // SAFETY: The structure is initialised, and the context may sleep.
        unsafe { bindings::vhmm_placement_alloc(&mut self.0) }
    }

    /// A huge page with one reference, or null.
    pub(super) fn alloc_huge(&mut self) -> *mut bindings::page {
        // SAFETY: As above.
        unsafe { bindings::vhmm_placement_alloc_huge(&mut self.0) }
    }
}
