// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! The ioctl itself: the one place that is not safe Rust.

use crate::{
    Advise, Evict, Info, Job, JobWait, Limit, Migrate, Prefetch, Residency, Stats, Wait, ADVISE_NR,
    EVICT_NR, INFO_NR, IOCTL_TYPE, JOB_NR, JOB_WAIT_NR, LIMIT_NR, MIGRATE_NR, PREFETCH_NR,
    RESIDENCY_NR, STATS_NR, WAIT_NR,
};
use core::ffi::c_void;
use rustix::fd::BorrowedFd;
use rustix::io::Errno;
use rustix::ioctl::{ioctl, opcode, Ioctl, IoctlOutput, Opcode, Updater};

/// INFO on `node`.
pub(super) fn info(node: BorrowedFd<'_>, argument: &mut Info) -> Result<(), Errno> {
    const OPCODE: Opcode = opcode::read_write::<Info>(IOCTL_TYPE, INFO_NR);
    update::<OPCODE, Info>(node, argument)
}

/// MIGRATE on `node`.
pub(super) fn migrate(node: BorrowedFd<'_>, argument: &mut Migrate) -> Result<(), Errno> {
    const OPCODE: Opcode = opcode::read_write::<Migrate>(IOCTL_TYPE, MIGRATE_NR);
    update::<OPCODE, Migrate>(node, argument)
}

/// RESIDENCY on `node`, without a map.
pub(super) fn residency_counts(
    node: BorrowedFd<'_>,
    argument: &mut Residency,
) -> Result<(), Errno> {
    argument.map = 0;
    residency(node, argument)
}

/// RESIDENCY on `node` with a map, which must have one byte for each page of the range.
pub(super) fn residency_map(
    node: BorrowedFd<'_>,
    argument: &mut Residency,
    page_bytes: u64,
    map: &mut [u8],
) -> Result<(), Errno> {
    let pages = argument.end.saturating_sub(argument.start) / page_bytes;
    // The kernel writes one byte for each page of the range it was given, whatever the length of
    // the slice: this check is what keeps it inside.
    if map.len() as u64 != pages {
        return Err(Errno::INVAL);
    }
    argument.map = map.as_mut_ptr().expose_provenance() as u64;
    residency(node, argument)
}

fn residency(node: BorrowedFd<'_>, argument: &mut Residency) -> Result<(), Errno> {
    const OPCODE: Opcode = opcode::read_write::<Residency>(IOCTL_TYPE, RESIDENCY_NR);
    update::<OPCODE, Residency>(node, argument)
}

/// STATS on `node`.
pub(super) fn stats(node: BorrowedFd<'_>, argument: &mut Stats) -> Result<(), Errno> {
    const OPCODE: Opcode = opcode::read_write::<Stats>(IOCTL_TYPE, STATS_NR);
    update::<OPCODE, Stats>(node, argument)
}

/// ADVISE on `node`.
pub(super) fn advise(node: BorrowedFd<'_>, argument: &mut Advise) -> Result<(), Errno> {
    const OPCODE: Opcode = opcode::read_write::<Advise>(IOCTL_TYPE, ADVISE_NR);
    update::<OPCODE, Advise>(node, argument)
}

/// PREFETCH on `node`.
pub(super) fn prefetch(node: BorrowedFd<'_>, argument: &mut Prefetch) -> Result<(), Errno> {
    const OPCODE: Opcode = opcode::read_write::<Prefetch>(IOCTL_TYPE, PREFETCH_NR);
    update::<OPCODE, Prefetch>(node, argument)
}

/// WAIT on `node`.
pub(super) fn wait(node: BorrowedFd<'_>, argument: &mut Wait) -> Result<(), Errno> {
    const OPCODE: Opcode = opcode::read_write::<Wait>(IOCTL_TYPE, WAIT_NR);
    update::<OPCODE, Wait>(node, argument)
}

/// EVICT on `node`.
pub(super) fn evict(node: BorrowedFd<'_>, argument: &mut Evict) -> Result<(), Errno> {
    const OPCODE: Opcode = opcode::read_write::<Evict>(IOCTL_TYPE, EVICT_NR);
    update::<OPCODE, Evict>(node, argument)
}

/// LIMIT on `node`.
pub(super) fn limit(node: BorrowedFd<'_>, argument: &mut Limit) -> Result<(), Errno> {
    const OPCODE: Opcode = opcode::read_write::<Limit>(IOCTL_TYPE, LIMIT_NR);
    update::<OPCODE, Limit>(node, argument)
}

/// JOB on `node`.
///
/// # Safety
/// The job may write the memory of the process that it names. If that is the caller, the caller answers for it as for
/// writes of its own through raw pointers, until the job has ended.
#[allow(unsafe_code)]
pub(super) unsafe fn job(node: BorrowedFd<'_>, argument: &mut Job) -> Result<(), Errno> {
    const OPCODE: Opcode = opcode::read_write::<Job>(IOCTL_TYPE, JOB_NR);
    update::<OPCODE, Job>(node, argument)
}

/// JOB_WAIT on `node`.
pub(super) fn job_wait(node: BorrowedFd<'_>, argument: &mut JobWait) -> Result<(), Errno> {
    const OPCODE: Opcode = opcode::read_write::<JobWait>(IOCTL_TYPE, JOB_WAIT_NR);
    update::<OPCODE, JobWait>(node, argument)
}

#[allow(unsafe_code)]
fn update<const OPCODE: Opcode, T>(node: BorrowedFd<'_>, argument: &mut T) -> Result<(), Errno> {
    // SAFETY: The callers above, which are all there are, give the opcode that carries the type
    // byte, the number and the size of `T`, so the kernel reads and writes exactly `argument`.
    // Every bit pattern is a value of these structures. Addresses are in two of them.
    // `Residency::map` is zero in `residency_counts`, and in `residency_map` it is that of a
    // slice which is borrowed for the call and has one byte for each page. What the device does at
    // the addresses in `Job` is what the caller of `job` answers for.
    unsafe { ioctl(node, Updater::<OPCODE, T>::new(argument)) }
}

/// `struct pm_scan_arg` of the kernel's `linux/fs.h`.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct ScanArgument {
    pub(super) size: u64,
    pub(super) flags: u64,
    pub(super) start: u64,
    pub(super) end: u64,
    /// Written: where the walk ended.
    pub(super) walk_end: u64,
    pub(super) vec: u64,
    pub(super) vec_len: u64,
    pub(super) max_pages: u64,
    pub(super) category_inverted: u64,
    pub(super) category_mask: u64,
    pub(super) category_anyof_mask: u64,
    pub(super) return_mask: u64,
}

/// `struct page_region` of the kernel's `linux/fs.h`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct PageRegion {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) categories: u64,
}

/// PAGEMAP_SCAN on `/proc/PID/pagemap`; how many regions were written.
pub(super) fn pagemap_scan(
    pagemap: BorrowedFd<'_>,
    argument: &mut ScanArgument,
    regions: &mut [PageRegion],
) -> Result<usize, Errno> {
    argument.size = size_of::<ScanArgument>() as u64;
    argument.vec = regions.as_mut_ptr().expose_provenance() as u64;
    argument.vec_len = regions.len() as u64;
    #[allow(unsafe_code)]
    // SAFETY: `Scan` describes the call, and `vec` and `vec_len` are the address and the length of
    // `regions`, which is borrowed for the call. Every bit pattern is a value of both structures.
    let count = unsafe { ioctl(pagemap, Scan(argument)) }?;
    usize::try_from(count).map_err(|_| Errno::INVAL)
}

struct Scan<'a>(&'a mut ScanArgument);

// SAFETY: The opcode is that of PAGEMAP_SCAN and carries the size of `ScanArgument`; the pointer is
// to one; the call writes to it, which `IS_MUTATING` says; and its result is a number.
#[allow(unsafe_code)]
unsafe impl Ioctl for Scan<'_> {
    type Output = IoctlOutput;

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        opcode::read_write::<ScanArgument>(b'f', 16)
    }

    fn as_ptr(&mut self) -> *mut c_void {
        core::ptr::from_mut(self.0).cast()
    }

    unsafe fn output_from_ptr(out: IoctlOutput, _: *mut c_void) -> Result<IoctlOutput, Errno> {
        Ok(out)
    }
}
