// SPDX-License-Identifier: GPL-2.0-only

//! What the driver knows of each process whose memory it moves: what it advised, and its account
//! of device memory.
//!
//! All of it belongs to the address space, whoever told it, and goes when the address space does.
//! A child starts without.
//!
//! # Lock order
//!
//! mmap lock > `Spaces::list` > `Space::advice`. A CPU fault takes `Space::advice` only if
//! anybody advised anything, and `Spaces::list` only then or for a huge page.

mod space;

pub(crate) use self::space::Space;
use crate::{
    pool::Accounts,
    sys::address_space::watch::Watch, //
};
use hmm_logic::Advice;
use kernel::{
    mm::MmWithUser,
    new_spinlock,
    prelude::*,
    sync::{
        atomic::{
            ordering::Relaxed,
            Atomic, //
        },
        Arc,
        SpinLock, //
    }, //
};

/// Processes that can be known at once.
const SPACES: usize = 1023;

/// A known process.
pub(crate) type Known = Arc<Watch<Space>>;

/// All known processes.
#[pin_data]
pub(crate) struct Spaces {
    #[pin]
    list: SpinLock<KVec<Known>>,
    /// How many have advice.
    advised: Arc<Atomic<u64>>,
}

impl Spaces {
    /// No process is known.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new() -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(move || {
            let list = KVec::with_capacity(SPACES, GFP_KERNEL)?;
            let advised = Arc::new(Atomic::new(0), GFP_KERNEL)?;
            Ok(try_pin_init!(Self {
                list <- new_spinlock!(list, "policy::Spaces::list"),
                advised,
            }? Error))
        })
    }

    /// What is known of `mm`. Takes the mmap lock for writing if nothing is known yet, so the
    /// caller must not hold it.
    ///
    /// # Errors
    ///
    /// `ENOSPC` too many processes are known, `ENOMEM`, `ERESTARTSYS` a signal came.
    pub(crate) fn of(&self, accounts: &Arc<Accounts>, mm: &MmWithUser) -> Result<Known> {
        kernel::task::might_sleep();
        if let Some(known) = self.find(mm) {
            return Ok(known);
        }
        self.forget_ended();
        let space = Space::new(accounts, self.advised.clone())?;
        let new: Known = Arc::pin_init(Watch::new(mm, space), GFP_KERNEL)?;
        let mut list = self.list.lock();
        if let Some(known) = list.iter().find(|known| known.is_of(mm)).cloned() {
            // Somebody else was quicker. Ours may sleep when it goes.
            drop(list);
            return Ok(known);
        }
        let kept = list.push_within_capacity(new.clone());
        drop(list);
        kept.map_err(|_| ENOSPC)?;
        Ok(new)
    }

    /// What is known of `mm`, if anything is. Does not sleep.
    pub(crate) fn find(&self, mm: &MmWithUser) -> Option<Known> {
        let list = self.list.lock();
        list.iter().find(|known| known.is_of(mm)).cloned()
    }

    /// What `mm` advised about `address`. Does not sleep.
    pub(crate) fn advice(&self, mm: &MmWithUser, address: usize) -> Advice {
        if self.advised.load(Relaxed) == 0 {
            return Advice::default();
        }
        let list = self.list.lock();
        list.iter()
            .find(|known| known.is_of(mm))
            .map_or_else(Advice::default, |known| known.watcher().advice(address))
    }

    /// Forgets processes that have ended.
    fn forget_ended(&self) {
        loop {
            let mut list = self.list.lock();
            let Some(index) = list.iter().position(|known| known.watcher().has_ended()) else {
                return;
            };
            let ended = list.remove(index);
            // It may sleep when it goes.
            drop(list);
            drop(ended);
        }
    }
}
