// SPDX-License-Identifier: GPL-2.0-only

//! Who has how much device memory, and how much each may have.
//!
//! A page is charged to the process that it was moved for, until the page is free: whoever else
//! comes to share it pays nothing.

use kernel::{
    prelude::*,
    sync::{
        atomic::{
            ordering::{
                Full,
                Relaxed, //
            },
            Atomic, //
        },
        Arc, //
    }, //
};

/// Processes that can have an account at once.
const ACCOUNTS: usize = 1024;
/// Set in `Account::pages` while somebody uses the account. What is below counts pages.
const OPEN: u64 = 1 << 63;

/// The account of one process.
struct Account {
    pages: Atomic<u64>,
    limit: Atomic<u64>,
}

/// The number of an account; `NONE` stands for none, which has no limit and is not counted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct AccountId(u32);

impl AccountId {
    /// No account.
    pub(crate) const NONE: Self = Self(0);
}

/// An account that is in use.
pub(crate) struct OpenAccount {
    accounts: Arc<Accounts>,
    id: AccountId,
}

impl OpenAccount {
    /// Opens an account without a limit; `None` if there are too many. One that was closed can be
    /// opened again once that its last page is free.
    pub(crate) fn new(accounts: &Arc<Accounts>) -> Option<Self> {
        for (id, account) in (0u32..).zip(&accounts.accounts).skip(1) {
            if account.pages.load(Relaxed) == 0 && account.pages.cmpxchg(0, OPEN, Full).is_ok() {
                account.limit.store(u64::MAX, Relaxed);
                return Some(Self {
                    accounts: accounts.clone(),
                    id: AccountId(id),
                });
            }
        }
        None
    }

    /// Its number.
    pub(crate) fn id(&self) -> AccountId {
        self.id
    }

    /// All accounts.
    pub(crate) fn all(&self) -> &Accounts {
        &self.accounts
    }
}

impl Drop for OpenAccount {
    fn drop(&mut self) {
        // Its pages are counted until they are free.
        if let Some(account) = self.accounts.account(self.id) {
            account.pages.fetch_sub(OPEN, Full);
        }
    }
}

/// All accounts.
pub(crate) struct Accounts {
    // Number 0 stands for none.
    accounts: KVVec<Account>,
}

impl Accounts {
    /// Accounts, all of which are closed and without pages.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new() -> Result<Self> {
        let mut accounts = KVVec::with_capacity(ACCOUNTS, GFP_KERNEL)?;
        for _ in 0..ACCOUNTS {
            accounts.push(
                Account {
                    pages: Atomic::new(0),
                    limit: Atomic::new(u64::MAX),
                },
                GFP_KERNEL,
            )?;
        }
        Ok(Self { accounts })
    }

    fn account(&self, id: AccountId) -> Option<&Account> {
        self.accounts.get(id.0 as usize).filter(|_| id.0 != 0)
    }

    /// Pages that are charged to an account.
    pub(crate) fn pages(&self, id: AccountId) -> u64 {
        self.account(id)
            .map_or(0, |account| account.pages.load(Relaxed) & !OPEN)
    }

    /// The limit of an account, pages; `u64::MAX` for none.
    pub(crate) fn limit(&self, id: AccountId) -> u64 {
        self.account(id)
            .map_or(u64::MAX, |account| account.limit.load(Relaxed))
    }

    /// Sets the limit of an account, pages; `u64::MAX` for none.
    pub(crate) fn set_limit(&self, id: AccountId, pages: u64) {
        if let Some(account) = self.account(id) {
            account.limit.store(pages, Relaxed);
        }
    }

    /// Pages that may be charged to an account now.
    pub(crate) fn room(&self, id: AccountId) -> u64 {
        self.limit(id).saturating_sub(self.pages(id))
    }

    /// Charges pages to an account; false if they would exceed its limit, and then none is charged.
    pub(crate) fn charge(&self, id: AccountId, pages: usize) -> bool {
        let Some(account) = self.account(id) else {
            return true;
        };
        let limit = account.limit.load(Relaxed);
        let mut old = account.pages.load(Relaxed);
        loop {
            let sum = (old & !OPEN).saturating_add(pages as u64);
            if sum > limit {
                return false;
            }
            match account.pages.cmpxchg(old, old + pages as u64, Relaxed) {
                Ok(_) => return true,
                Err(other) => old = other,
            }
        }
    }

    /// Takes back a charge for pages that did not become anybody's.
    pub(crate) fn uncharge(&self, id: AccountId, pages: usize) {
        if let Some(account) = self.account(id) {
            account.pages.fetch_sub(pages as u64, Relaxed);
        }
    }
}
