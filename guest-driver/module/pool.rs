// SPDX-License-Identifier: GPL-2.0-only

//! Device memory: the pagemap, which page is free, how much is resident, and whether a device is
//! attached. [`Pool`] is the whole, which outlives the device; [`Pages`] are its records.
//!
//! # Lock order
//!
//! `Pages::records` is a leaf. It is taken in atomic context, when the kernel frees a page.

mod accounts;
mod allocation;
mod attachment;
mod memory;

pub(crate) use self::{
    accounts::{
        AccountId,
        Accounts,
        OpenAccount, //
    },
    allocation::Allocation,
    attachment::FaultServer,
    memory::{
        Identity,
        PagemapOps,
        Pool, //
    }, //
};
use core::ops::Range;
use hmm_logic::{
    Block,
    BlockAllocator,
    KeptPages,
    Run,
    BLOCK_PAGES, //
};
use kernel::{
    new_spinlock_irq,
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        atomic::{
            ordering::Relaxed,
            Atomic, //
        },
        Arc,
        SpinLockIrq, //
    }, //
};

/// This part of the blocks is kept for huge pages while others have room.
const RESERVE: usize = 64;
/// When less than this part of the memory is available, old pages are evicted in the background.
const LOW_WATERMARK: usize = 32;
/// So much is made available then.
const HIGH_WATERMARK: usize = 16;

/// Where the allocator keeps its blocks.
struct Blocks(KVVec<Block>);

impl AsRef<[Block]> for Blocks {
    fn as_ref(&self) -> &[Block] {
        &self.0
    }
}

impl AsMut<[Block]> for Blocks {
    fn as_mut(&mut self) -> &mut [Block] {
        &mut self.0
    }
}

/// What is known of the pages.
struct Records {
    blocks: BlockAllocator<Blocks>,
    /// Whom each page in use is charged to.
    charged_to: KVVec<AccountId>,
}

impl Records {
    /// The pages are charged to an account from now on.
    fn assign(&mut self, pages: Range<usize>, account: AccountId) {
        if let Some(charged_to) = self.charged_to.get_mut(pages) {
            charged_to.fill(account);
        }
    }
}

/// The time of a request, by which the pool tells what was wanted before it. Later requests have
/// larger numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(u64);

impl Ticket {
    /// The time of the request before.
    pub(crate) fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

/// The records of device pages: which are free, since when the others are used, and by whom.
pub(crate) struct Pages {
    records: Pin<KBox<SpinLockIrq<Records>>>,
    pages: usize,
    next_ticket: Atomic<u64>,
    /// The most pages that were in use at once.
    peak_pages: Atomic<u64>,
    accounts: Arc<Accounts>,
}

impl Pages {
    /// Records of `pages` free pages, a multiple of [`BLOCK_PAGES`].
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    fn new(pages: usize) -> Result<Self> {
        let count = pages / BLOCK_PAGES;
        // A device may claim more memory than there can be records of, which is its mistake and no bug.
        let mut blocks = KVVec::with_capacity(count, GFP_KERNEL | __GFP_NOWARN)?;
        for _ in 0..count {
            blocks.push(Block::new(), GFP_KERNEL)?;
        }
        let pages = count * BLOCK_PAGES;
        let mut charged_to = KVVec::with_capacity(pages, GFP_KERNEL | __GFP_NOWARN)?;
        charged_to.resize(pages, AccountId::NONE, GFP_KERNEL)?;
        let records = Records {
            blocks: BlockAllocator::new(Blocks(blocks), count / RESERVE),
            charged_to,
        };
        Ok(Self {
            pages,
            next_ticket: Atomic::new(1),
            records: KBox::pin_init(new_spinlock_irq!(records, "Pages::records"), GFP_KERNEL)?,
            peak_pages: Atomic::new(0),
            accounts: Arc::new(Accounts::new()?, GFP_KERNEL)?,
        })
    }

    /// What is charged to whom.
    pub(crate) fn accounts(&self) -> &Arc<Accounts> {
        &self.accounts
    }

    /// Marks pages as to be kept by eviction, or not.
    pub(crate) fn keep(&self, pages: Range<usize>, keep: bool) {
        let mut records = self.records.lock();
        for page in pages {
            records.blocks.keep(page, keep);
        }
    }

    /// Device memory in use by pages, bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        (self.records.lock().blocks.pages_in_use() * PAGE_SIZE) as u64
    }

    /// The most device memory that was in use at once, bytes.
    pub(crate) fn peak_resident_bytes(&self) -> u64 {
        self.peak_pages.load(Relaxed) * PAGE_SIZE as u64
    }

    /// The pages of the first block from block `from` on that has pages in use, and the block
    /// after it.
    pub(crate) fn next_block_in_use(&self, from: usize) -> Option<(Range<usize>, usize)> {
        let block = self.records.lock().blocks.next_in_use(from)?;
        let first = block * BLOCK_PAGES;
        Some((first..first + BLOCK_PAGES, block + 1))
    }

    /// The time of a request that begins now.
    pub(crate) fn ticket(&self) -> Ticket {
        Ticket(self.next_ticket.fetch_add(1, Relaxed))
    }

    /// The time of the request that began last.
    pub(crate) fn last_ticket(&self) -> Ticket {
        Ticket(self.next_ticket.load(Relaxed) - 1)
    }

    /// Whether a request has begun after the one of `ticket`.
    pub(crate) fn has_later(&self, ticket: Ticket) -> bool {
        self.next_ticket.load(Relaxed) > ticket.0 + 1
    }

    /// How many blocks there are.
    pub(crate) fn blocks(&self) -> usize {
        self.pages / BLOCK_PAGES
    }

    /// Pages that can be allocated now.
    pub(crate) fn available_pages(&self) -> usize {
        self.records.lock().blocks.pages_available()
    }

    /// Whether so little is available that old pages should be evicted in the background.
    pub(crate) fn is_below_low_watermark(&self) -> bool {
        self.available_pages() < self.pages / LOW_WATERMARK
    }

    /// Pages that should be available after that.
    pub(crate) fn high_watermark(&self) -> usize {
        self.pages / HIGH_WATERMARK
    }

    /// Remembers that a request wants the page at `index` on the device.
    pub(crate) fn touch(&self, index: usize, ticket: Ticket) {
        self.records.lock().blocks.touch(index, ticket.0);
    }

    /// Chooses a block whose pages are to be evicted, but for those that are to be kept, and none of
    /// which a request has wanted since `before`. While the result lives, none of its pages are given
    /// out.
    pub(crate) fn take_victim(&self, before: Ticket) -> Option<Victim<'_>> {
        let block = self.records.lock().blocks.victim(before.0)?;
        Some(Victim { of: self, block })
    }

    /// Takes what `take` takes, to be charged to `account`.
    fn allocate(
        &self,
        account: AccountId,
        take: impl FnOnce(&mut BlockAllocator<Blocks>) -> Option<Run>,
    ) -> Option<Run> {
        let mut records = self.records.lock();
        let run = take(&mut records.blocks)?;
        records.assign(run.first..run.first + run.len, account);
        let in_use = records.blocks.pages_in_use() as u64;
        // Written only under the lock, so there is no race to the maximum.
        if in_use > self.peak_pages.load(Relaxed) {
            self.peak_pages.store(in_use, Relaxed);
        }
        Some(run)
    }

    fn charge_to_nobody(&self, pages: Range<usize>) {
        self.records.lock().assign(pages, AccountId::NONE);
    }

    /// Takes back pages that were not charged after all.
    fn give_back(&self, pages: Range<usize>) {
        let mut records = self.records.lock();
        records.assign(pages.clone(), AccountId::NONE);
        free(&mut records.blocks, pages);
    }

    /// Takes back pages that were in use, and uncharges them.
    fn free(&self, pages: Range<usize>) {
        let mut records = self.records.lock();
        let charged_to = records.charged_to.get_mut(pages.clone());
        for same in charged_to.unwrap_or_default().chunk_by_mut(|a, b| a == b) {
            if let Some(&account) = same.first() {
                self.accounts.uncharge(account, same.len());
            }
            same.fill(AccountId::NONE);
        }
        free(&mut records.blocks, pages);
    }
}

fn free(blocks: &mut BlockAllocator<Blocks>, pages: Range<usize>) {
    if blocks.free(pages.clone()).is_err() {
        pr_err!(
            "of the pages {:?} of device memory one was freed twice\n",
            pages
        );
    }
}

/// A block that is being emptied.
pub(crate) struct Victim<'a> {
    of: &'a Pages,
    block: usize,
}

impl Victim<'_> {
    /// The block's pages.
    pub(crate) fn pages(&self) -> Range<usize> {
        let first = self.block * BLOCK_PAGES;
        first..first + BLOCK_PAGES
    }

    /// Those of them that are to be kept now.
    pub(crate) fn kept(&self) -> KeptPages {
        self.of.records.lock().blocks.kept(self.block)
    }
}

impl Drop for Victim<'_> {
    fn drop(&mut self) {
        self.of.records.lock().blocks.release(self.block);
    }
}
