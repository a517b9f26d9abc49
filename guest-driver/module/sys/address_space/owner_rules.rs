// SPDX-License-Identifier: GPL-2.0-only

//! Page faults in the place of the owner of an address space.
//!
//! A page fault allocates by the memory policy of the mapping, else by that of the calling task, and within the nodes that
//! the cpuset of the calling task allows. A thread of the kernel has neither, so it adopts those of the owner for as long
//! as it handles such faults. The memory cgroup is that of the address space in any case.
//!
//! C header: [`include/linux/mempolicy.h`](srctree/include/linux/mempolicy.h)

use crate::sys::bindings;
use core::mem::MaybeUninit;
use kernel::mm::Mm;

/// Does `work` under the memory policy and the cpuset of the owner of `mm`: of the task that stands for the process. Does it
/// under the caller's own unless the caller is a thread of the kernel.
pub(crate) fn under_rules_of<R>(mm: &Mm, work: impl FnOnce() -> R) -> R {
    let mut rules = MaybeUninit::uninit();
    // SAFETY: The address space is valid. The C function fills the structure, which the calling thread refers to from now
    // on, and which stays where it is until the call below: a panic of the kernel does not unwind.
    unsafe { bindings::vhmm_adopt_rules(mm.as_raw(), rules.as_mut_ptr()) };
    let result = work();
    // SAFETY: As above; with this the thread refers to the structure no more.
    unsafe { bindings::vhmm_restore_rules(rules.as_mut_ptr()) };
    result
}
