// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which tests a command line chooses.

use crate::partition::Partition;
use libtest_mimic::Arguments;

/// The choice of `FILTER`, `--exact` and `--skip`, within a part of all tests.
#[derive(Clone, Debug)]
pub struct Selection {
    partition: Partition,
    filter: Option<String>,
    exact: bool,
    skip: Vec<String>,
}

impl Selection {
    /// Takes the choice out of the arguments, which choose everything from then on: the test of a boot as a whole
    /// cannot be left out.
    pub fn take_from(arguments: &mut Arguments, partition: Partition) -> Self {
        Self {
            partition,
            filter: arguments.filter.take(),
            exact: arguments.exact,
            skip: std::mem::take(&mut arguments.skip),
        }
    }

    /// Whether a test is chosen.
    pub fn contains(&self, name: &str) -> bool {
        self.contains_with(name, name)
    }

    /// The same of a test that shares a boot with others of its group, which all belong to one part.
    pub fn contains_in_group(&self, name: &str) -> bool {
        let group = name.rsplit_once('/').map_or(name, |(group, _)| group);
        self.contains_with(name, group)
    }

    fn contains_with(&self, name: &str, key: &str) -> bool {
        let fits = |pattern: &str| {
            if self.exact {
                name == pattern
            } else {
                name.contains(pattern)
            }
        };
        self.partition.contains(key)
            && self.filter.as_deref().is_none_or(fits)
            && !self.skip.iter().any(|pattern| fits(pattern))
    }
}

#[cfg(test)]
mod tests {
    use super::Selection;
    use crate::partition::Partition;
    use libtest_mimic::Arguments;

    fn selection(arguments: &[&str]) -> (Selection, Arguments) {
        part_of_selection("1/1", arguments)
    }

    fn part_of_selection(part: &str, arguments: &[&str]) -> (Selection, Arguments) {
        let mut arguments =
            Arguments::from_iter(std::iter::once("guest").chain(arguments.iter().copied()));
        let partition: Partition = part.parse().unwrap();
        (Selection::take_from(&mut arguments, partition), arguments)
    }

    #[test]
    fn a_part_has_some_tests_and_groups_whole() {
        let [first, second] = ["1/2", "2/2"].map(|part| part_of_selection(part, &["config/"]).0);
        let names: Vec<String> = (0..20).map(|number| format!("config/{number}")).collect();
        for name in &names {
            assert_ne!(first.contains(name), second.contains(name));
            assert_ne!(
                first.contains_in_group(name),
                second.contains_in_group(name)
            );
        }
        let whole = |part: &Selection| {
            names
                .iter()
                .filter(|name| part.contains_in_group(name))
                .count()
        };
        assert!(
            [0, names.len()].contains(&whole(&first)),
            "{}",
            whole(&first)
        );
        assert!(!first.contains("other/1") && !second.contains("other/1"));
    }

    #[test]
    fn without_a_filter_everything_is_chosen() {
        assert!(selection(&[]).0.contains("fork/child-reads"));
    }

    #[test]
    fn a_filter_is_part_of_the_name_unless_it_is_exact() {
        let (part, arguments) = selection(&["fork/child"]);
        assert!(part.contains("fork/child-reads"));
        assert!(!part.contains("exit/normal"));
        assert_eq!(arguments.filter, None);
        let (exact, _) = selection(&["fork/child", "--exact"]);
        assert!(!exact.contains("fork/child-reads"));
        assert!(exact.contains("fork/child"));
    }

    #[test]
    fn what_is_skipped_is_not_chosen() {
        let (some, _) = selection(&["fork/", "--skip", "child"]);
        assert!(some.contains("fork/grand"));
        assert!(!some.contains("fork/child-reads"));
    }
}
