// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What to delay in place of a function that the kernel does not have: the compiler inlined it, or gave it another name, or it
//! was not spelled right.

use std::collections::{BTreeSet, VecDeque};
use std::fs;

/// Functions that compilers inline, and who calls them, a function a line: those of `mm/` and of process exit that either of
/// the two pinned kernels does not have as a symbol. Linux 7.3.4.
const CALLERS: &str = include_str!("callers.txt");

/// Names of the running kernel's functions. They are read when they are needed.
#[derive(Debug, Default)]
pub(super) struct Symbols {
    names: Option<BTreeSet<String>>,
}

impl Symbols {
    /// A sentence about what can be delayed in place of a function.
    pub(super) fn hint(&mut self, function: &str) -> Option<String> {
        let names = self.names.get_or_insert_with(|| {
            let text = fs::read("/proc/kallsyms").unwrap_or_default();
            names(&String::from_utf8_lossy(&text))
        });
        hint(function, names)
    }
}

/// The functions among the kernel's symbols.
fn names(kallsyms: &str) -> BTreeSet<String> {
    (kallsyms.lines())
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            let kind = words.nth(1)?;
            let name = words.next()?;
            matches!(kind, "t" | "T" | "w" | "W").then(|| name.to_owned())
        })
        .collect()
}

fn hint(function: &str, names: &BTreeSet<String>) -> Option<String> {
    if let Some(other) = renamed(function, names) {
        return Some(format!("the compiler made {other} of it"));
    }
    if let Some(caller) = nearest_caller(function, names) {
        return Some(format!(
            "it is inlined, and the nearest caller that is not is {caller}"
        ));
    }
    let spelled = (names.iter())
        .map(|name| (strsim::damerau_levenshtein(function, name), name))
        .min()?;
    (spelled.0 <= 1 + function.len() / 4).then(|| format!("there is {}", spelled.1))
}

/// A copy that the compiler made for some callers.
fn renamed<'a>(function: &str, names: &'a BTreeSet<String>) -> Option<&'a String> {
    let prefix = format!("{function}.");
    (names.range(prefix.clone()..))
        .take_while(|name| name.starts_with(&prefix))
        .find(|name| !name.ends_with(".cold"))
}

/// The first function on the way up from caller to caller that is one of the kernel's.
fn nearest_caller<'a>(function: &'a str, names: &BTreeSet<String>) -> Option<&'a str> {
    let mut open = VecDeque::from([function]);
    let mut seen = BTreeSet::from([function]);
    while let Some(next) = open.pop_front() {
        for caller in callers(next) {
            if names.contains(caller) {
                return Some(caller);
            }
            if seen.insert(caller) {
                open.push_back(caller);
            }
        }
    }
    None
}

/// The lines of the table that are no comments.
fn table() -> impl Iterator<Item = &'static str> {
    CALLERS.lines().filter(|line| !line.starts_with('#'))
}

fn callers(function: &str) -> impl Iterator<Item = &'static str> {
    table()
        .filter(move |line| line.split(' ').next() == Some(function))
        .flat_map(|line| line.split(' ').skip(1))
}

#[cfg(test)]
mod tests {
    use super::{hint, names, table};
    use std::collections::BTreeSet;

    fn symbols() -> BTreeSet<String> {
        names(
            "0000000000000000 T migrate_vma_finalize\n\
             0000000000000000 t mem_cgroup_move.isra.0\n\
             0000000000000000 t mem_cgroup_move.cold\n\
             0000000000000000 d folio_unlocked\n\
             0000000000000000 T folio_unlock\n\
             0000000000000000 T handle_mm_fault\n\
             0000000000000000 t __handle_mm_fault\n\
             0000000000000000 t hmm_delay\t[hmm_delays]\n",
        )
    }

    #[test]
    fn only_functions_are_symbols() {
        let names = symbols();
        assert!(names.contains("hmm_delay"));
        assert!(!names.contains("folio_unlocked"));
    }

    #[test]
    fn another_name_is_told_first() {
        let hint = hint("mem_cgroup_move", &symbols()).unwrap();
        assert!(hint.contains("mem_cgroup_move.isra.0"), "{hint}");
    }

    #[test]
    fn the_nearest_caller_is_found_over_several_steps() {
        for inlined in ["handle_pte_fault", "do_anonymous_page", "do_pte_missing"] {
            let hint = hint(inlined, &symbols()).unwrap();
            assert!(hint.contains("inlined"), "{inlined}: {hint}");
            assert!(hint.contains("__handle_mm_fault"), "{inlined}: {hint}");
        }
    }

    #[test]
    fn a_wrong_letter_is_noticed_and_nonsense_has_no_hint() {
        let hint_of = |name| hint(name, &symbols());
        assert!(hint_of("folio_unlok").unwrap().contains("folio_unlock"));
        assert_eq!(hint_of("qqqqqqqqqqqq"), None);
    }

    #[test]
    fn the_table_has_a_function_and_its_callers_in_each_line() {
        for line in table() {
            assert!(line.split(' ').count() >= 2, "{line}");
            assert!(line.split(' ').all(|name| !name.is_empty()), "{line}");
        }
    }
}
