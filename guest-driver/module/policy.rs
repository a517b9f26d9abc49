// SPDX-License-Identifier: GPL-2.0-only

//! What the driver knows of each process whose memory it moves: what was advised about its memory,
//! and how much device memory it has and may have.
//!
//! Advice belongs to the address space, whichever process gave it, and ends with it; a child starts
//! without. A limit belongs to the process ([`Processes`]).
//!
//! # Lock order
//!
//! mmap lock > `Table::tree` > `Space::advice`. A CPU fault takes `Space::advice` only if there is
//! any advice, and `Table::tree` only then or for a huge page.
//!
//! `Table::tree`, `ProcessEntry::state` > `Accounts::spare`. The first two are taken while a process
//! is forked, which must not sleep.

mod processes;
mod space;
mod table;

use self::table::{
    Entry,
    Table, //
};
pub(crate) use self::{
    processes::{
        ProcessEntry,
        Processes, //
    },
    space::{
        BringBack,
        Space, //
    }, //
};
use crate::sys::address_space::watch::Watch;
use hmm_logic::Advice;
use kernel::{
    mm::MmWithUser,
    prelude::*,
    sync::{
        atomic::{
            ordering::Relaxed,
            Atomic, //
        },
        Arc, //
    }, //
};

/// An address space that the driver watches, with what was advised about it.
pub(crate) type WatchedSpace = Arc<Watch<Space>>;

impl Entry for Watch<Space> {
    fn has_ended(&self) -> bool {
        self.watcher().has_ended()
    }
}

/// All known address spaces.
#[pin_data]
pub(crate) struct Spaces {
    #[pin]
    table: Table<Watch<Space>>,
    /// How many have advice.
    advised: Arc<Atomic<u64>>,
    /// What migrates their pages back.
    device: Arc<dyn BringBack>,
}

impl Spaces {
    /// No address space is known.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(device: Arc<dyn BringBack>) -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(move || {
            let advised = Arc::new(Atomic::new(0), GFP_KERNEL)?;
            Ok(try_pin_init!(Self {
                table <- Table::new(),
                advised,
                device,
            }? Error))
        })
    }

    /// What is known of `mm`. Takes the mmap lock for writing if nothing is known yet, so the
    /// caller must not hold it.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, `ERESTARTSYS` a signal came.
    pub(crate) fn of(&self, mm: &MmWithUser) -> Result<WatchedSpace> {
        kernel::task::might_sleep();
        if let Some(known) = self.find(mm) {
            return Ok(known);
        }
        let space = Space::new(mm, self.advised.clone(), self.device.clone());
        let new: WatchedSpace = Arc::pin_init(Watch::new(mm, space), GFP_KERNEL)?;
        // A known address space stays what it is, so one with the same number is the same.
        self.table.insert(number(mm), new, GFP_KERNEL, |_| true)
    }

    /// What is known of `mm`, if anything is. Does not sleep.
    pub(crate) fn find(&self, mm: &MmWithUser) -> Option<WatchedSpace> {
        self.table.with(number(mm), Arc::clone)
    }

    /// What `mm` advised about `address`. Does not sleep.
    pub(crate) fn advice(&self, mm: &MmWithUser, address: usize) -> Advice {
        if self.advised.load(Relaxed) == 0 {
            return Advice::default();
        }
        self.table
            .with(number(mm), |known| known.watcher().advice(address))
            .unwrap_or_default()
    }
}

/// The number of an address space, which no other has as long as it is known.
fn number(mm: &MmWithUser) -> usize {
    mm.as_raw().addr()
}
