// SPDX-License-Identifier: GPL-2.0-only

//! Buffers of the driver that the jobs of a space can access, at addresses that no process has.

use super::{
    handle::Space,
    table::WindowRecord,
    view::Followed, //
};
use crate::sys::virtio::virtqueue::SharedBuffer;
use hmm_protocol::VIRTUAL_ADDRESS_END;
use kernel::{
    page::PAGE_SIZE,
    prelude::*,
    sync::Arc, //
};

/// Bytes of the largest window.
const MOST: usize = 4 << 20;

/// A buffer of the driver that the jobs of a space can access until this is dropped.
pub(crate) struct Window {
    followed: Arc<Followed>,
    record: WindowRecord,
}

impl Space {
    /// A window of `bytes`, a power of two from a page to 4 MiB, filled with zeros.
    ///
    /// # Errors
    ///
    /// `EINVAL` another size, `ENOMEM`; as [`Space::run`] if the device does not work.
    pub(crate) fn window(&self, bytes: usize) -> Result<Window> {
        if !bytes.is_power_of_two() || !(PAGE_SIZE..=MOST).contains(&bytes) {
            return Err(EINVAL);
        }
        let buffer = Arc::new(SharedBuffer::new(bytes / PAGE_SIZE)?, GFP_KERNEL)?;
        let view = self.view();
        let device = self.pool().attached().ok_or(ENODEV)?;
        let mut room = KVec::new();
        loop {
            view.ensure_context(&device)?;
            let mut table = view.table.lock();
            let Some(session) = table.session(device.link()) else {
                // The device was reset meanwhile.
                drop(table);
                continue;
            };
            let needed = table.windows.len() + 1;
            if room.capacity() < needed {
                drop(table);
                room = KVec::with_capacity(2 * needed, GFP_KERNEL)?;
                continue;
            }
            let address = table.next_window;
            let next = address.checked_add(MOST as u64).ok_or(ENOSPC)?;
            if next > VIRTUAL_ADDRESS_END {
                return Err(ENOSPC);
            }
            table.next_window = next;
            let record = WindowRecord::new(address, buffer);
            for window in &table.windows {
                let _ = room.push_within_capacity(window.clone());
            }
            let _ = room.push_within_capacity(record.clone());
            // Before the device is told: what may be mapped must be taken away again.
            let old = core::mem::replace(&mut table.windows, room);
            let mapped = record.map(device.link(), view.context, session);
            drop(table);
            drop(old);
            let window = Window {
                followed: self.followed.clone(),
                record,
            };
            return mapped.map(|()| window);
        }
    }
}

impl Window {
    /// Where jobs find it.
    pub(crate) fn address(&self) -> u64 {
        self.record.address()
    }

    /// Copies from it, from byte `offset` on; offset and length are multiples of 8.
    ///
    /// # Errors
    ///
    /// `EINVAL`: they are not, or it ends before.
    pub(crate) fn read(&self, offset: usize, to: &mut [u8]) -> Result {
        self.record.buffer().read(offset, to)
    }

    /// Copies to it.
    ///
    /// # Errors
    ///
    /// As [`Window::read`].
    pub(crate) fn write(&self, offset: usize, from: &[u8]) -> Result {
        self.record.buffer().write(offset, from)
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        let view = self.followed.mirrored();
        let device = view.pool.attached_for_change();
        let link = device.as_ref().map(|device| device.link());
        let mut table = view.table.lock();
        table.remove_window(link, view.context, &self.record);
    }
}
