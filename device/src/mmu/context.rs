// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One context: its page tables, and the gate between accesses and changes.

use std::sync::Arc;

use hmm_gate::Gate;

use super::{
    budget::{Budget, Charge},
    change::Edit,
    section::{Memories, Section},
    table::PageTable,
};

/// A context. It may outlive its session in a job that is about to end, but then it has no page tables.
#[derive(Debug)]
pub struct Context {
    number: u32,
    /// None: the context was destroyed.
    tables: Gate<Option<PageTable>>,
}

impl Context {
    /// Context `number` with empty page tables, which take their memory from `budget`.
    pub(super) fn new(number: u32, budget: Arc<Budget>) -> Self {
        Self {
            number,
            tables: Gate::new(Some(PageTable::new(Charge::new(budget)))),
        }
    }

    /// Its number.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Runs `work`, a short stretch of a job (100 microseconds at most) in which translations do not change. `is_wanted` says
    /// whether a thread waits for the caller to leave the device's gate, in which the caller is. Nothing that `work` gets
    /// of the section outlives it. Call it in no section of any context.
    ///
    /// `None`: the context was destroyed, and `work` did not run.
    pub fn section<R>(
        &self,
        memories: &Memories<'_>,
        is_wanted: &dyn Fn() -> bool,
        work: impl FnOnce(&Section<'_>) -> R,
    ) -> Option<R> {
        let tables = self.tables.enter();
        let table = tables.as_ref()?;
        let should_leave = || self.tables.is_wanted() || is_wanted();
        Some(work(&Section::new(table, memories, &should_leave)))
    }

    /// Runs `work`, which changes the page tables, while no section is open. When this returns, no access happens any more under
    /// what `work` took away. `None`: the context was destroyed, and `work` did not run.
    pub fn edit<R>(&self, work: impl FnOnce(&mut Edit<'_>) -> R) -> Option<R> {
        self.tables.change(|tables| {
            let table = tables.as_mut()?;
            Some(work(&mut Edit::new(table)))
        })
    }

    /// Drops the page tables. Afterwards no access happens through this context.
    pub(super) fn destroy(&self) {
        self.tables.replace(None);
    }

    /// Bytes that the page tables take.
    pub fn table_bytes(&self) -> u64 {
        self.tables.enter().as_ref().map_or(0, PageTable::bytes)
    }
}
