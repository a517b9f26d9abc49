// SPDX-License-Identifier: GPL-2.0-only

//! What unit tests move: memory of an address space of their own, and the memory of a device that
//! copies nothing.
//!
//! C header: [`include/kunit/test.h`](srctree/include/kunit/test.h)

use crate::sys::{
    bindings,
    device_memory::{
        page::Destination,
        pagemap::{
            Fault,
            FaultError,
            Operations,
            PrivateMemory, //
        }, //
    },
    migrate::{
        BufferPool,
        Collected,
        Migration,
        Source, //
    }, //
};
use core::{
    ops::Range,
    ptr::null_mut, //
};
use kernel::{
    error::to_result,
    mm::MmWithUser,
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            ordering::Relaxed,
            Atomic, //
        },
        Arc, //
    },
    uaccess::{
        UserPtr,
        UserSlice, //
    }, //
};

/// Anonymous memory of the calling test. Its thread gets an address space for it, which ends when the
/// thread does.
pub(crate) struct TestMemory(Range<usize>);

impl TestMemory {
    /// So many private pages, none of which has been touched.
    pub(crate) fn new(pages: usize) -> Result<Self> {
        let access = bindings::PROT_READ | bindings::PROT_WRITE;
        Self::map(pages, access, bindings::MAP_PRIVATE)
    }

    /// As [`TestMemory::new`], but without access permission.
    pub(crate) fn without_access(pages: usize) -> Result<Self> {
        Self::map(pages, bindings::PROT_NONE, bindings::MAP_PRIVATE)
    }

    /// As [`TestMemory::new`], but shared.
    pub(crate) fn shared(pages: usize) -> Result<Self> {
        let access = bindings::PROT_READ | bindings::PROT_WRITE;
        Self::map(pages, access, bindings::MAP_SHARED)
    }

    fn map(pages: usize, access: u32, kind: u32) -> Result<Self> {
        let bytes = pages * PAGE_SIZE;
        // SAFETY: A test runs on a kernel thread of its own, which may have an address space.
        to_result(unsafe { bindings::kunit_attach_mm() })?;
        let flags = (kind | bindings::MAP_ANONYMOUS) as usize;
        // SAFETY: The thread has an address space.
        let start = unsafe { bindings::vm_mmap(null_mut(), 0, bytes, access as usize, flags, 0) };
        // CAST: The last addresses are errors.
        if start % PAGE_SIZE != 0 {
            return Err(Error::from_errno(start as c_int));
        }
        Ok(Self(start..start + bytes))
    }

    /// Its addresses.
    pub(crate) fn range(&self) -> Range<usize> {
        self.0.clone()
    }

    /// Its address space.
    pub(crate) fn mm(&self) -> Result<ARef<MmWithUser>> {
        current!().mm().map(ARef::from).ok_or(EFAULT)
    }

    fn byte(&self, page: usize) -> UserSlice {
        UserSlice::new(UserPtr::from_addr(self.0.start + page * PAGE_SIZE), 1)
    }

    /// Writes the number of each page into it.
    pub(crate) fn fill(&self) -> Result {
        for page in 0..self.0.len() / PAGE_SIZE {
            self.byte(page).writer().write_slice(&[page as u8])?;
        }
        Ok(())
    }

    /// What is in a page, for [`TestMemory::fill`].
    pub(crate) fn read(&self, page: usize) -> Result<u8> {
        let mut byte = [0];
        self.byte(page).reader().read_slice(&mut byte)?;
        Ok(byte[0])
    }

    /// Unmaps it.
    pub(crate) fn unmap(self) -> Result {
        // SAFETY: The thread has an address space, and nothing else refers to these addresses.
        to_result(unsafe { bindings::vm_munmap(self.0.start, self.0.len()) })
    }
}

/// What a device heard, in numbers.
pub(in crate::sys) struct Observed {
    freed: Atomic<usize>,
    faults: Atomic<usize>,
}

impl Observed {
    /// Pages that went free.
    pub(in crate::sys) fn freed(&self) -> usize {
        self.freed.load(Relaxed)
    }

    /// CPU faults, none of which was served.
    pub(in crate::sys) fn faults(&self) -> usize {
        self.faults.load(Relaxed)
    }
}

/// A device that loses everything.
pub(in crate::sys) struct Void(Arc<Observed>);

impl Operations for Void {
    fn migrate_to_ram(memory: &PrivateMemory<Self>, _: &Fault<'_>) -> Result<(), FaultError> {
        memory.ops().0.faults.fetch_add(1, Relaxed);
        Err(FaultError::Lost)
    }

    fn pages_freed(&self, indices: Range<usize>) {
        self.0.freed.fetch_add(indices.len(), Relaxed);
    }
}

/// The memory of a device.
pub(in crate::sys) type TestDevice = Pin<KBox<PrivateMemory<Void>>>;

/// Device memory of so many pages, and what it hears.
pub(in crate::sys) fn device(pages: usize) -> Result<(TestDevice, Arc<Observed>)> {
    let heard = Observed {
        freed: Atomic::new(0),
        faults: Atomic::new(0),
    };
    let heard = Arc::new(heard, GFP_KERNEL)?;
    let memory = PrivateMemory::new(pages, c"virtio_hmm_kunit", Void(heard.clone()));
    Ok((KBox::pin_init(memory, GFP_KERNEL)?, heard))
}

/// Buffers for one migration of so many pages, also by number.
pub(in crate::sys) fn buffers(pages: usize) -> Result<Pin<KBox<BufferPool>>> {
    KBox::pin_init(BufferPool::new(1, pages, true), GFP_KERNEL)
}

/// Gives each page and hole that was collected a destination. Returns how many there are.
pub(in crate::sys) fn give_each(
    migration: &mut Migration<'_, Collected>,
    mut destination: impl FnMut(usize) -> Result<Destination>,
) -> Result<usize> {
    let (mut given, mut result) = (0, Ok(()));
    migration.for_each_source(|visit| {
        if let Source::Page(_) | Source::Hole = visit.source() {
            match destination(visit.index()) {
                Ok(page) => {
                    visit.give(page);
                    given += 1;
                }
                Err(error) => result = Err(error),
            }
        }
    });
    result.map(|()| given)
}
