// SPDX-License-Identifier: GPL-2.0-only

//! SNAPSHOT: how the process maps its pages, with the eyes of the device.

use super::{
    command::{
        Argument,
        Outcome, //
    },
    mirror_file::MirrorFile, //
};
use crate::{
    device::Device,
    sys::{
        address_space::{
            mmap_lock::MmapReadGuard,
            page_mapping::{
                PageKind,
                PageMapping, //
            },
            snapshot::Snapshot, //
        },
        device_memory::page::HUGE_PAGES,
        services::signal::signal_waits, //
    }, //
};
use hmm_uapi::dmirror::{
    PROT_DEVICE,
    PROT_ERROR,
    PROT_NONE,
    PROT_PMD,
    PROT_PUD,
    PROT_READ,
    PROT_WRITE,
    PROT_ZERO, //
};
use kernel::{
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*, //
};

/// Pages that are looked at with one hold of the mmap lock.
const WINDOW: usize = 512;
/// log2 of the pages that an entry of a page middle directory maps.
const PMD_ORDER: usize = HUGE_PAGES.ilog2() as usize;
/// The same of a page upper directory.
const PUD_ORDER: usize = 2 * PMD_ORDER;

impl MirrorFile {
    /// Writes a byte for each page to the caller's buffer. Each is right for some moment of the call.
    ///
    /// # Errors
    ///
    /// `EINVAL` the address space has ended, `EFAULT` the buffer cannot be written, `ENOMEM`,
    /// `ERESTARTSYS` a signal came, `EINTR` the caller was killed.
    pub(super) fn snapshot(&self, device: &Device, argument: &Argument) -> Result<Outcome> {
        let process = self.process()?;
        let mm = process.mm();
        let owner = device.memory().owner();
        let snapshot = KBox::pin_init(Snapshot::new(mm), GFP_KERNEL)?;
        let mut entries = KVec::from_elem(0, WINDOW, GFP_KERNEL)?;
        let mut bytes = KVec::with_capacity(WINDOW, GFP_KERNEL)?;
        let mut buffer = argument.buffer(1)?.writer();
        let range = argument.range();
        for start in range.clone().step_by(WINDOW * PAGE_SIZE) {
            if signal_waits() {
                return Err(ERESTARTSYS);
            }
            let end = range.end.min(start.saturating_add(WINDOW * PAGE_SIZE));
            bytes.clear();
            {
                let guard = MmapReadGuard::lock(mm, || false)?;
                let add = |mapping| {
                    // There is room for a window, which is as much as is looked at.
                    let _ = bytes.push_within_capacity(byte_of(mapping));
                };
                snapshot.look_at_mappings(&guard, start..end, owner, &mut entries, add)?;
            }
            // User memory must not be touched under the mmap lock.
            buffer.write_slice(&bytes)?;
        }
        Ok(Outcome {
            pages: range.len() >> PAGE_SHIFT,
            faults: 0,
        })
    }
}

/// The byte that stands for a page.
fn byte_of(mapping: PageMapping) -> u8 {
    match mapping {
        PageMapping::Error => PROT_ERROR,
        PageMapping::None => PROT_NONE,
        PageMapping::Page {
            kind,
            is_writable,
            order,
        } => {
            let kind = match kind {
                PageKind::System => 0,
                PageKind::Zero => PROT_ZERO,
                PageKind::Device => PROT_DEVICE,
            };
            let access = match is_writable {
                true => PROT_WRITE,
                false => PROT_READ,
            };
            let size = match order {
                PMD_ORDER => PROT_PMD,
                PUD_ORDER => PROT_PUD,
                _ => 0,
            };
            kind | access | size
        }
    }
}

#[kunit_tests(virtio_hmm_dmirror_snapshot)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_has_kind_access_and_size() {
        let page = |kind, is_writable, order| {
            byte_of(PageMapping::Page {
                kind,
                is_writable,
                order,
            })
        };
        assert_eq!(page(PageKind::System, false, 0), 0x01);
        assert_eq!(page(PageKind::System, true, 9), 0x06);
        assert_eq!(page(PageKind::System, true, 18), 0x0a);
        assert_eq!(page(PageKind::Zero, false, 0), 0x11);
        assert_eq!(page(PageKind::Device, true, 0), 0x22);
        assert_eq!(byte_of(PageMapping::None), 0);
        assert_eq!(byte_of(PageMapping::Error), 0xff);
    }
}
