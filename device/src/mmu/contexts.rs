// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! All contexts of a session, by their number.

use std::{collections::BTreeMap, sync::Arc};

use hmm_protocol::Status;
use parking_lot::RwLock;

use super::{Budget, Context, ContextsSnapshot};

/// All contexts of a session.
#[derive(Debug)]
pub struct Contexts {
    max: u32,
    budget: Arc<Budget>,
    by_number: RwLock<BTreeMap<u32, Arc<Context>>>,
}

impl Contexts {
    /// No context yet; there can be those with the numbers 0 to `max` - 1. Their page tables share `budget`.
    pub fn new(max: u32, budget: Arc<Budget>) -> Self {
        Self {
            max,
            budget,
            by_number: RwLock::default(),
        }
    }

    /// Most contexts.
    pub fn max(&self) -> u32 {
        self.max
    }

    /// Number of contexts.
    pub fn count(&self) -> usize {
        self.by_number.read().len()
    }

    /// How many there are, and what they take.
    pub fn snapshot(&self) -> ContextsSnapshot {
        ContextsSnapshot {
            present: self.count() as u64,
            table_bytes: self.budget.used(),
            table_bytes_max: self.budget.limit(),
        }
    }

    /// Creates context `number` with empty page tables.
    ///
    /// # Errors
    /// `BadContext`: the number is beyond the limit, or a context has it.
    pub fn create(&self, number: u64) -> Result<(), Status> {
        let number = (u32::try_from(number).ok())
            .filter(|number| *number < self.max)
            .ok_or(Status::BadContext)?;
        let mut contexts = self.by_number.write();
        if contexts.contains_key(&number) {
            return Err(Status::BadContext);
        }
        let context = Context::new(number, Arc::clone(&self.budget));
        contexts.insert(number, Arc::new(context));
        Ok(())
    }

    /// Destroys context `number`. When this returns, no access happens through it.
    ///
    /// # Errors
    /// `BadContext`: no context has the number.
    pub fn destroy(&self, number: u64) -> Result<u32, Status> {
        let number = u32::try_from(number).map_err(|_| Status::BadContext)?;
        let removed = self.by_number.write().remove(&number);
        // Outside the lock: sections of the context may take their time.
        removed.ok_or(Status::BadContext)?.destroy();
        Ok(number)
    }

    /// Context `number`, if there is one.
    pub fn get(&self, number: u32) -> Option<Arc<Context>> {
        self.by_number.read().get(&number).cloned()
    }

    /// Destroys all contexts. When this returns, no access happens through any.
    pub fn clear(&self) {
        let all = std::mem::take(&mut *self.by_number.write());
        for context in all.values() {
            context.destroy();
        }
    }
}
