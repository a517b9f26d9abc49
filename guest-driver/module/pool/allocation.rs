// SPDX-License-Identifier: GPL-2.0-only

//! Device pages on their way from the free list to a migration.

use super::{
    accounts::AccountId,
    attachment::FaultServer,
    memory::Pool,
    Ticket, //
};
use crate::sys::device_memory::page::Destination;
use hmm_logic::Run;
use kernel::prelude::*;

/// Device pages that are allocated but have no owner yet. What is not used goes back.
pub(crate) struct Allocation<'a, D: FaultServer> {
    pool: &'a Pool<D>,
    run: Run,
}

impl<'a, D: FaultServer> Allocation<'a, D> {
    /// Up to `want` contiguous pages; `None` if the device is full. Each page that is taken from
    /// here must have been charged to `account`.
    pub(crate) fn new(
        pool: &'a Pool<D>,
        want: usize,
        ticket: Ticket,
        account: AccountId,
    ) -> Option<Self> {
        let run = pool
            .pages()
            .allocate(account, |blocks| blocks.allocate(want, ticket.0))?;
        Some(Self { pool, run })
    }

    /// A destination for a huge page; `None` if no block is free. Its pages must have been charged
    /// to `account`.
    pub(crate) fn huge(pool: &Pool<D>, ticket: Ticket, account: AccountId) -> Option<Destination> {
        let run = pool
            .pages()
            .allocate(account, |blocks| blocks.allocate_block(ticket.0))?;
        pool.memory()
            .huge_destination(run.first)
            .inspect_err(|_| {
                pr_err!("free block at page {} is in use\n", run.first);
                pool.pages()
                    .charge_to_nobody(run.first..run.first + run.len);
            })
            .ok()
    }

    /// The next page as a destination; `None` if all are used.
    pub(crate) fn next(&mut self) -> Option<Destination> {
        while self.run.len > 0 {
            let index = self.run.first;
            self.run.first += 1;
            self.run.len -= 1;
            match self.pool.memory().destination(index) {
                Ok(destination) => return Some(destination),
                // The page stays out of the free list: something else has it.
                Err(_) => {
                    pr_err!("free page {} of device memory is in use\n", index);
                    self.pool.pages().charge_to_nobody(index..index + 1);
                }
            }
        }
        None
    }
}

impl<D: FaultServer> Drop for Allocation<'_, D> {
    fn drop(&mut self) {
        let rest = self.run.first..self.run.first + self.run.len;
        self.pool.pages().give_back(rest);
    }
}
