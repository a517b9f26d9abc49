// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Groups of functions that are delayed together: the places where a race about a page can be lost.

/// Where a function is delayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Before its first instruction.
    Entry,
    /// When it has returned, and before its caller goes on.
    Return,
}

/// A function of a group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Function {
    pub(super) name: &'static str,
    pub(super) place: Place,
}

const fn entry(name: &'static str) -> Function {
    Function {
        name,
        place: Place::Entry,
    }
}

const fn returns(name: &'static str) -> Function {
    Function {
        name,
        place: Place::Return,
    }
}

/// The groups by their names.
const GROUPS: &[(&str, &[Function])] = &[
    (
        "migrate",
        &[
            returns("migrate_vma_collect_pmd"),
            entry("migrate_device_unmap"),
            entry("migrate_vma_pages"),
            entry("migrate_vma_finalize"),
            entry("migrate_device_pfns"),
            returns("migrate_device_pfns"),
            entry("migrate_device_pages"),
            entry("migrate_device_finalize"),
            entry("remove_migration_ptes"),
            returns("remove_migration_ptes"),
            // Between the unlock of a source and the put of its last reference.
            returns("folio_unlock"),
        ],
    ),
    (
        "rmap",
        &[
            entry("try_to_migrate"),
            returns("try_to_migrate"),
            entry("remove_migration_pte"),
            entry("rmap_walk_anon"),
            returns("folio_lock_anon_vma_read"),
            entry("unlink_anon_vmas"),
            returns("anon_vma_clone"),
            returns("anon_vma_fork"),
        ],
    ),
    (
        "fault",
        &[
            entry("handle_mm_fault"),
            entry("do_swap_page"),
            entry("do_wp_page"),
            entry("do_huge_pmd_device_private"),
            entry("__folio_lock_or_retry"),
            returns("__folio_lock_or_retry"),
            entry("migration_entry_wait"),
            entry("softleaf_entry_wait_on_locked"),
        ],
    ),
    (
        "exit",
        &[
            entry("mmput"),
            entry("exit_mmap"),
            returns("unmap_vmas"),
            entry("free_pgtables"),
            entry("unlink_anon_vmas"),
            returns("unlink_anon_vmas"),
        ],
    ),
    (
        "split",
        &[
            entry("__folio_split"),
            returns("__folio_split"),
            entry("__split_huge_pmd"),
            entry("split_huge_pmd_locked"),
            returns("split_huge_pmd_locked"),
        ],
    ),
    (
        "ksm",
        &[
            entry("try_to_merge_one_page"),
            returns("try_to_merge_one_page"),
            entry("break_ksm"),
            entry("ksm_might_need_to_copy"),
        ],
    ),
    (
        "reclaim",
        &[
            entry("shrink_folio_list"),
            entry("try_to_unmap"),
            returns("try_to_unmap"),
            entry("__remove_mapping"),
            returns("folio_isolate_lru"),
            entry("folio_putback_lru"),
        ],
    ),
];

/// The functions of the group with this name.
pub(super) fn functions(name: &str) -> Option<&'static [Function]> {
    (GROUPS.iter())
        .find(|(group, _)| *group == name)
        .map(|(_, functions)| *functions)
}

#[cfg(test)]
mod tests {
    use super::{GROUPS, functions};
    use std::collections::BTreeSet;

    #[test]
    fn groups_are_found_by_name_and_functions_are_not() {
        for group in [
            "migrate", "rmap", "fault", "exit", "split", "ksm", "reclaim",
        ] {
            assert!(functions(group).is_some(), "{group}");
        }
        assert!(functions("migrate_vma_setup").is_none());
    }

    #[test]
    fn no_group_has_a_place_twice_and_all_together_fit_into_the_module() {
        for (group, functions) in GROUPS {
            let places: BTreeSet<_> = (functions.iter())
                .map(|function| (function.name, function.place == super::Place::Entry))
                .collect();
            assert_eq!(places.len(), functions.len(), "{group}");
        }
        let all: usize = GROUPS.iter().map(|(_, functions)| functions.len()).sum();
        // MOST in guest-driver/delays/hmm_delays.c.
        assert!(all <= 64, "{all}");
    }
}
