// SPDX-License-Identifier: GPL-2.0-only

//! A table of shared entries by number, for any number of them.
//!
//! An entry is found in logarithmic time. It may stay in the table when it has ended: each insertion
//! looks at some entries in turn and drops those that have, so that their number stays below a share
//! of the others.

use kernel::{
    alloc::Flags,
    new_spinlock,
    prelude::*,
    rbtree::{
        RBTree,
        RBTreeNode, //
    },
    sync::{
        Arc,
        SpinLock, //
    }, //
};

/// Entries that each insertion looks at.
const LOOK: usize = 4;

/// An entry of a [`Table`].
pub(super) trait Entry {
    /// Whether the table may forget the entry. Once that it says so it says so for good.
    fn has_ended(&self) -> bool;
}

/// A table of `V`.
#[pin_data]
pub(super) struct Table<V: Entry> {
    #[pin]
    tree: SpinLock<Tree<V>>,
}

struct Tree<V> {
    entries: RBTree<usize, Arc<V>>,
    /// The first entry that the next insertion looks at.
    next: usize,
}

impl<V: Entry> Table<V> {
    /// A table without entries.
    pub(super) fn new() -> impl PinInit<Self> {
        let tree = Tree {
            entries: RBTree::new(),
            next: 0,
        };
        pin_init!(Self {
            tree <- new_spinlock!(tree, "policy::Table::tree"),
        })
    }

    /// Calls `look` with the entry of this number. It must not sleep.
    pub(super) fn with<R>(&self, number: usize, look: impl FnOnce(&Arc<V>) -> R) -> Option<R> {
        self.tree.lock().entries.get(&number).map(look)
    }

    /// Inserts `value` unless there is an entry of this number that `is_good`, and returns the one
    /// that is in the table then. Sleeps only if `flags` allow it, or if dropping a `V` does.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn insert(
        &self,
        number: usize,
        value: Arc<V>,
        flags: Flags,
        is_good: impl FnOnce(&V) -> bool,
    ) -> Result<Arc<V>> {
        let new = RBTreeNode::new(number, value.clone(), flags)?;
        let mut tree = self.tree.lock();
        if let Some(entry) = tree.entries.get(&number).filter(|entry| is_good(entry)) {
            let entry = entry.clone();
            drop(tree);
            // What was not needed is dropped without the lock, here and below.
            drop((new, value));
            return Ok(entry);
        }
        let replaced = tree.entries.insert(new);
        let ended = tree.take_ended();
        drop(tree);
        drop((replaced, ended));
        Ok(value)
    }
}

impl<V: Entry> Tree<V> {
    /// Looks at the next entries and removes those that have ended.
    fn take_ended(&mut self) -> [Option<RBTreeNode<usize, Arc<V>>>; LOOK] {
        let mut ended = [const { None }; LOOK];
        for slot in &mut ended {
            let Some(cursor) = self.entries.cursor_lower_bound_mut(&self.next) else {
                // From the start again.
                self.next = 0;
                break;
            };
            let (&number, entry) = cursor.current();
            self.next = number.saturating_add(1);
            if entry.has_ended() {
                let (_, node) = cursor.remove_current();
                *slot = Some(node);
            }
        }
        ended
    }
}

#[kunit_tests(virtio_hmm_table)]
mod tests {
    use super::*;
    use kernel::sync::atomic::{
        ordering::Relaxed,
        AtomicFlag, //
    };

    struct Number {
        value: usize,
        ended: AtomicFlag,
    }

    impl Number {
        fn new(value: usize) -> Result<Arc<Self>> {
            let ended = AtomicFlag::new(false);
            Ok(Arc::new(Self { value, ended }, GFP_KERNEL)?)
        }
    }

    impl Entry for Number {
        fn has_ended(&self) -> bool {
            self.ended.load(Relaxed)
        }
    }

    fn table() -> Result<Pin<KBox<Table<Number>>>> {
        KBox::pin_init(Table::new(), GFP_KERNEL)
    }

    fn find(table: &Table<Number>, number: usize) -> Option<usize> {
        table.with(number, |entry| entry.value)
    }

    #[test]
    fn an_entry_that_is_good_stays() -> Result {
        let table = table()?;
        assert!(find(&table, 3).is_none());
        for (value, is_good, expected) in [(1, true, 1), (2, true, 1), (3, false, 3)] {
            let entry = table.insert(3, Number::new(value)?, GFP_KERNEL, |_| is_good)?;
            assert_eq!(entry.value, expected);
            assert_eq!(find(&table, 3), Some(expected));
        }
        Ok(())
    }

    #[test]
    fn what_has_ended_is_forgotten() -> Result {
        const MOST: usize = 3000;
        let table = table()?;
        for number in 0..MOST {
            let entry = table.insert(number, Number::new(number)?, GFP_KERNEL, |_| true)?;
            entry.ended.store(number % 2 == 0, Relaxed);
        }
        for number in MOST..2 * MOST {
            table.insert(number, Number::new(number)?, GFP_KERNEL, |_| true)?;
        }
        for number in 0..2 * MOST {
            let expected = number >= MOST || number % 2 == 1;
            assert_eq!(find(&table, number).is_some(), expected);
        }
        Ok(())
    }
}
