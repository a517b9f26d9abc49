// SPDX-License-Identifier: GPL-2.0-only

//! What is known of the windows of a space, so that they are mapped again after a reset.

use crate::{
    link::{
        Link,
        MapBatch,
        Mapped,
        NoAccess, //
    },
    sys::virtio::virtqueue::SharedBuffer, //
};
use hmm_protocol::{
    MapEntry,
    MapFlags,
    Status,
    VIRTUAL_ADDRESS_END, //
};
use kernel::{
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    sync::Arc, //
};

/// The first address that no process has.
pub(in crate::space) const FIRST: u64 = VIRTUAL_ADDRESS_END / 2;
/// What the space knows of a window.
#[derive(Clone)]
pub(crate) struct WindowRecord {
    address: u64,
    buffer: Arc<SharedBuffer<NoAccess>>,
}

impl WindowRecord {
    /// A window at an address.
    pub(in crate::space) fn new(address: u64, buffer: Arc<SharedBuffer<NoAccess>>) -> Self {
        Self { address, buffer }
    }

    /// Where jobs find it.
    pub(in crate::space) fn address(&self) -> u64 {
        self.address
    }

    /// What it shows.
    pub(in crate::space) fn buffer(&self) -> &SharedBuffer<NoAccess> {
        &self.buffer
    }

    /// Its bytes.
    pub(in crate::space) fn bytes(&self) -> u64 {
        (self.buffer.pages() * PAGE_SIZE) as u64
    }

    /// The device does not access it any more.
    pub(in crate::space) fn withdraw(&self, proof: &NoAccess) {
        self.buffer.withdraw(proof);
    }

    /// Lets the device access it, until [`WindowRecord::withdraw`].
    ///
    /// # Errors
    ///
    /// `ENOMEM`, `EIO`.
    pub(in crate::space) fn map(&self, link: &Link, context: u32, session: u32) -> Result {
        let target = link.shared_address(self.buffer.expose())?;
        let flags = MapFlags::READ.union(MapFlags::WRITE);
        let mut batch = MapBatch::new(link, context);
        // CAST: A small constant. The buffer is contiguous, and so is the direct mapping.
        let shift = PAGE_SHIFT as u8;
        batch.push(MapEntry::map(
            self.address,
            self.bytes(),
            target,
            flags,
            shift,
        ))?;
        match batch.execute(session) {
            Mapped::All => Ok(()),
            Mapped::Failed(_, Status::Busy) | Mapped::Refused(Status::Busy) => Err(ENOMEM),
            _ => Err(EIO),
        }
    }
}
