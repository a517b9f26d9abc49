// SPDX-License-Identifier: GPL-2.0-only

//! How much device memory each process may have.
//!
//! A limit is like one of `setrlimit()`: it belongs to the process with all its threads, stays when
//! the process executes another program, and is that of each child from its first moment. Lowering it
//! takes no privilege. Each process has its own account.

use super::table::{
    Entry,
    Table, //
};
use crate::{
    pool::{
        AccountId,
        Accounts,
        OpenAccount, //
    },
    sys::services::process_id::{
        ForkListener,
        ProcessId, //
    }, //
};
use kernel::{
    alloc::Flags,
    new_spinlock,
    prelude::*,
    sync::{
        atomic::{
            ordering::Relaxed,
            AtomicFlag, //
        },
        Arc,
        SpinLock, //
    },
    task::Task, //
};

/// No limit.
const UNLIMITED: u64 = u64::MAX;

/// A process that has a limit, or an account.
#[pin_data]
pub(crate) struct ProcessEntry {
    id: ProcessId,
    accounts: Arc<Accounts>,
    #[pin]
    state: SpinLock<State>,
}

struct State {
    /// Pages.
    limit: u64,
    /// Opened when it is needed first.
    account: Option<OpenAccount>,
}

impl ProcessEntry {
    /// The account. The caller keeps the entry as long as it uses the number.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn account(&self) -> Result<AccountId> {
        if let Some(account) = &self.state.lock().account {
            return Ok(account.id());
        }
        let new = OpenAccount::new(&self.accounts)?;
        let mut state = self.state.lock();
        let limit = state.limit;
        let unused = match &state.account {
            Some(_) => Some(new),
            None => {
                self.accounts.set_limit(new.id(), limit);
                state.account.replace(new)
            }
        };
        let id = state.account.as_ref().map(OpenAccount::id);
        drop(state);
        drop(unused);
        id.ok_or(ENOMEM)
    }

    /// The number of the process in the first namespace.
    pub(crate) fn number(&self) -> usize {
        self.id.number()
    }

    /// The limit, pages; `u64::MAX` for none.
    pub(crate) fn limit(&self) -> u64 {
        self.state.lock().limit
    }

    /// Pages that are charged to the process.
    pub(crate) fn pages(&self) -> u64 {
        let state = self.state.lock();
        (state.account.as_ref()).map_or(0, |account| self.accounts.pages(account.id()))
    }

    /// Sets the limit. Whether it may become higher is asked if it would.
    fn set_limit(&self, pages: u64, may_raise: impl FnOnce() -> bool) -> Result {
        let old = self.limit();
        if pages > old && !may_raise() {
            return Err(EPERM);
        }
        let mut state = self.state.lock();
        if state.limit != old && pages > state.limit {
            // Another call has lowered it meanwhile; this one came first.
            return Ok(());
        }
        state.limit = pages;
        if let Some(account) = &state.account {
            self.accounts.set_limit(account.id(), pages);
        }
        Ok(())
    }
}

impl Entry for ProcessEntry {
    fn has_ended(&self) -> bool {
        self.id.has_ended()
    }
}

/// All processes that have a limit, or an account.
#[pin_data]
pub(crate) struct Processes {
    #[pin]
    table: Table<ProcessEntry>,
    /// Whether any process ever had a limit.
    has_limits: AtomicFlag,
    accounts: Arc<Accounts>,
}

impl Processes {
    /// No process has a limit.
    pub(crate) fn new(accounts: Arc<Accounts>) -> impl PinInit<Self> {
        pin_init!(Self {
            table <- Table::new(),
            has_limits: AtomicFlag::new(false),
            accounts,
        })
    }

    /// The entry of a process, which may be new.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn of(&self, id: ProcessId) -> Result<Arc<ProcessEntry>> {
        match self.find(&id) {
            Some(entry) => Ok(entry),
            None => self.insert(id, UNLIMITED, GFP_KERNEL),
        }
    }

    /// Sets the limit of a process, pages, and `u64::MAX` for none. Whether it may become higher is
    /// asked if it would.
    ///
    /// # Errors
    ///
    /// `EPERM`: it may not.
    pub(crate) fn set_limit(
        &self,
        entry: &ProcessEntry,
        pages: u64,
        may_raise: impl FnOnce() -> bool,
    ) -> Result {
        // Before there is one, so that no child is missed that has it.
        self.has_limits.store(true, Relaxed);
        entry.set_limit(pages, may_raise)
    }

    /// The entry of a process, if there is one. Does not sleep.
    fn find(&self, id: &ProcessId) -> Option<Arc<ProcessEntry>> {
        let entry = self.table.with(id.number(), Arc::clone);
        // One that has ended may have had the same number.
        entry.filter(|entry| entry.id == *id)
    }

    fn insert(&self, id: ProcessId, limit: u64, flags: Flags) -> Result<Arc<ProcessEntry>> {
        let number = id.number();
        let state = State {
            limit,
            account: None,
        };
        let accounts = self.accounts.clone();
        let entry = Arc::pin_init(
            try_pin_init!(ProcessEntry {
                id,
                accounts,
                state <- new_spinlock!(state, "policy::ProcessEntry::state"),
            }? Error),
            flags,
        )?;
        let new = entry.clone();
        let is_good = |other: &ProcessEntry| other.id == new.id;
        self.table.insert(number, entry, flags, is_good)
    }
}

impl ForkListener for Processes {
    fn forked(&self, parent: &Task, child: &Task) -> Result {
        if !self.has_limits.load(Relaxed) {
            return Ok(());
        }
        let (Ok(parent), Ok(child)) = (ProcessId::of(parent), ProcessId::of(child)) else {
            return Ok(());
        };
        if parent == child {
            return Ok(());
        }
        let limit = self.find(&parent).map_or(UNLIMITED, |entry| entry.limit());
        if limit == UNLIMITED {
            return Ok(());
        }
        let entry = self.insert(child, limit, GFP_ATOMIC | __GFP_NOWARN)?;
        // Another process may have found the child before.
        let lower = entry.limit().min(limit);
        entry.set_limit(lower, || false)
    }
}
