// SPDX-License-Identifier: GPL-2.0-only

//! What is known of an address space that the device sees.

use super::table::Table;
use crate::{
    contexts::Numbers,
    device::{
        Device,
        DevicePool, //
    },
    policy::{
        ProcessEntry, //
        WatchedSpace,
    },
    sys::address_space::{
        mirror::Mirror,
        process::Process, //
    }, //
};
use hmm_protocol::Status;
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        aref::ARef,
        Arc,
        Mutex, //
    },
    task::Task, //
};

/// How often a context is created on a device that is reset meanwhile.
const TRIES: usize = 8;

/// See the module.
#[pin_data]
pub(crate) struct View {
    pub(super) pool: Arc<DevicePool>,
    /// Where the number of its context comes from.
    pub(super) numbers: Arc<Numbers>,
    /// The number of its context, which no other has meanwhile.
    pub(super) context: u32,
    /// Whose memory moves, by whose rules.
    pub(super) task: ARef<Task>,
    pub(super) known: WatchedSpace,
    /// Keeps the account open that pages are charged to.
    pub(super) entry: Arc<ProcessEntry>,
    /// The update lock.
    #[pin]
    pub(super) table: Mutex<Table>,
    /// Held while a page is made exclusive, so that there is one such page at a time.
    #[pin]
    pub(super) exclusive: Mutex<()>,
}

/// A view that follows its address space.
pub(super) type Followed = Mirror<View>;

impl View {
    /// A view of the memory of `process`, with nothing mapped.
    ///
    /// # Errors
    ///
    /// Never; that is for the caller's sake.
    pub(super) fn new(
        device: &Device,
        process: &Process,
        context: u32,
        known: WatchedSpace,
        entry: Arc<ProcessEntry>,
    ) -> impl PinInit<Self, Error> {
        let (pool, task) = (device.pool().clone(), process.task().clone());
        let numbers = device.contexts().numbers.clone();
        try_pin_init!(Self {
            pool,
            numbers,
            context,
            task,
            known,
            entry,
            table <- new_mutex!(Table::new(), "space::View::table"),
            exclusive <- new_mutex!((), "space::View::exclusive"),
        }? Error)
    }

    /// Makes sure that the context exists on the device, also while the device is being started anew. Returns how often
    /// the device had been reset when it was created. The caller holds no lock that the recovery of the link needs.
    ///
    /// # Errors
    ///
    /// `ENODEV` the device is going, `ESRCH` the address space has ended, `EIO` the device does not work.
    pub(super) fn ensure_context(&self, device: &Device) -> Result<u32> {
        let link = device.link();
        let mut tries = 0;
        loop {
            link.ready()?;
            let resets = link.resets();
            let result = self.table.lock().ensure_context(link, self.context);
            tries += 1;
            let was_reset = link.resets() != resets || link.is_recovering();
            match result {
                Err(error) if error != ESRCH && was_reset && tries < TRIES => {}
                result => return result,
            }
        }
    }

    /// Ends the context and its jobs.
    pub(super) fn close(&self) {
        let device = self.pool.attached_for_change();
        let link = device.as_ref().map(|device| device.link());
        self.table.lock().close(link, self.context);
        if let Some(device) = &device {
            let jobs = &device.contexts().jobs;
            jobs.finish_context(self.context, Status::Cancelled);
        }
    }
}
