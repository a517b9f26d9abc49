// SPDX-License-Identifier: GPL-2.0-only

//! How much device memory each process has, and how much it may have.
//!
//! A page is charged to the process that it was moved for, until the page is free: a process that
//! comes to share it by `fork()` is not charged. So an account stays after its process, until its last
//! page is free.
//!
//! # Lock order
//!
//! `Accounts::spare` is a leaf. It is taken in atomic context, when the kernel frees a page.

use kernel::{
    new_spinlock_irq,
    prelude::*,
    sync::{
        atomic::{
            ordering::{
                Full,
                Relaxed, //
            },
            Atomic, //
        },
        Arc,
        SetOnce,
        SpinLockIrq, //
    }, //
};

/// Accounts that are allocated at once, and stay.
const CHUNK: usize = 1024;
/// Chunks that there can be: more accounts than the kernel has process ids.
const CHUNKS: usize = 8192;
/// Set in `Account::pages` while the account is in use. The bits below count pages.
const OPEN: u64 = 1 << 63;

/// The account of one process.
struct Account {
    pages: Atomic<u64>,
    limit: Atomic<u64>,
    /// The next one to be opened, of those that were closed.
    next: Atomic<u32>,
}

impl Account {
    const fn new() -> Self {
        Self {
            pages: Atomic::new(0),
            limit: Atomic::new(u64::MAX),
            next: Atomic::new(0),
        }
    }
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
    /// Opens an account without pages and without a limit.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(accounts: &Arc<Accounts>) -> Result<Self> {
        let id = accounts.take_spare()?;
        let account = accounts.account(id).ok_or(ENOMEM)?;
        account.limit.store(u64::MAX, Relaxed);
        account.pages.store(OPEN, Relaxed);
        Ok(Self {
            accounts: accounts.clone(),
            id,
        })
    }

    /// Its number.
    pub(crate) fn id(&self) -> AccountId {
        self.id
    }
}

impl Drop for OpenAccount {
    fn drop(&mut self) {
        // Its pages are counted until they are free.
        self.accounts.subtract(self.id, OPEN);
    }
}

/// Accounts that can be opened.
struct Spare {
    /// The first that was closed; the others follow by [`Account::next`].
    closed: u32,
    /// The first that was never open.
    fresh: u32,
}

/// All accounts.
pub(crate) struct Accounts {
    chunks: KVVec<SetOnce<KVVec<Account>>>,
    spare: Pin<KBox<SpinLockIrq<Spare>>>,
}

impl Accounts {
    /// Accounts, all of which are closed and without pages.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new() -> Result<Self> {
        let mut chunks = KVVec::with_capacity(CHUNKS, GFP_KERNEL)?;
        for _ in 0..CHUNKS {
            chunks.push(SetOnce::new(), GFP_KERNEL)?;
        }
        // Number 0 stands for none.
        let spare = Spare {
            closed: 0,
            fresh: 1,
        };
        Ok(Self {
            chunks,
            spare: KBox::pin_init(
                new_spinlock_irq!(spare, "pool::Accounts::spare"),
                GFP_KERNEL,
            )?,
        })
    }

    fn account(&self, id: AccountId) -> Option<&Account> {
        let index = id.0 as usize;
        let chunk = self.chunks.get(index / CHUNK)?.as_ref()?;
        chunk.get(index % CHUNK).filter(|_| id.0 != 0)
    }

    /// An account that is closed and has no pages.
    fn take_spare(&self) -> Result<AccountId> {
        loop {
            let mut spare = self.spare.lock();
            let id = AccountId(spare.closed);
            if let Some(account) = self.account(id) {
                spare.closed = account.next.load(Relaxed);
                return Ok(id);
            }
            let id = AccountId(spare.fresh);
            if self.account(id).is_some() {
                spare.fresh += 1;
                return Ok(id);
            }
            drop(spare);
            self.add_chunk(id.0 as usize / CHUNK)?;
        }
    }

    fn add_chunk(&self, index: usize) -> Result {
        let slot = self.chunks.get(index).ok_or(ENOMEM)?;
        let mut chunk = KVVec::with_capacity(CHUNK, GFP_KERNEL)?;
        for _ in 0..CHUNK {
            chunk.push(Account::new(), GFP_KERNEL)?;
        }
        if !slot.populate(chunk) {
            // Another thread adds the same one, and needs a moment for that at most.
            core::hint::spin_loop();
        }
        Ok(())
    }

    /// Takes pages, or the mark that it is open, from an account. One that is closed and has no pages
    /// can be opened again.
    fn subtract(&self, id: AccountId, amount: u64) {
        let Some(account) = self.account(id) else {
            return;
        };
        if account.pages.fetch_sub(amount, Full) == amount {
            let mut spare = self.spare.lock();
            account.next.store(spare.closed, Relaxed);
            spare.closed = id.0;
        }
    }

    /// Pages that are charged to an account.
    pub(crate) fn pages(&self, id: AccountId) -> u64 {
        self.account(id)
            .map_or(0, |account| account.pages.load(Relaxed) & !OPEN)
    }

    /// The limit of an account, pages; `u64::MAX` for none.
    fn limit(&self, id: AccountId) -> u64 {
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

    /// Takes back a charge for pages that were not used.
    pub(crate) fn uncharge(&self, id: AccountId, pages: usize) {
        self.subtract(id, pages as u64);
    }
}

#[kunit_tests(virtio_hmm_accounts)]
mod tests {
    use super::*;

    /// More than two chunks.
    const MANY: usize = 2 * CHUNK + 10;

    #[test]
    fn each_account_has_its_limit() -> Result {
        let accounts = Arc::new(Accounts::new()?, GFP_KERNEL)?;
        let mut open = KVVec::with_capacity(MANY, GFP_KERNEL)?;
        for number in 0..MANY {
            let account = OpenAccount::new(&accounts)?;
            accounts.set_limit(account.id(), number as u64);
            open.push(account, GFP_KERNEL)?;
        }
        for (number, account) in open.iter().enumerate() {
            assert!(accounts.charge(account.id(), number));
            assert!(!accounts.charge(account.id(), 1));
            assert_eq!(accounts.pages(account.id()), number as u64);
            accounts.uncharge(account.id(), number);
        }
        Ok(())
    }

    #[test]
    fn an_account_is_used_again_once_its_last_page_is_free() -> Result {
        let accounts = Arc::new(Accounts::new()?, GFP_KERNEL)?;
        let first = OpenAccount::new(&accounts)?;
        let id = first.id();
        assert!(accounts.charge(id, 3));
        drop(first);
        assert!(OpenAccount::new(&accounts)?.id() != id);
        accounts.uncharge(id, 3);
        let again = OpenAccount::new(&accounts)?;
        assert!(again.id() == id && accounts.pages(id) == 0 && accounts.limit(id) == u64::MAX);
        Ok(())
    }
}
