// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which tests a command line chooses.

use libtest_mimic::Arguments;

/// The choice of `FILTER`, `--exact` and `--skip`.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    filter: Option<String>,
    exact: bool,
    skip: Vec<String>,
}

impl Selection {
    /// Takes the choice out of the arguments, which choose everything from then on: what a boot proves as a whole is
    /// not for anybody to leave out.
    pub fn take_from(arguments: &mut Arguments) -> Self {
        Self {
            filter: arguments.filter.take(),
            exact: arguments.exact,
            skip: std::mem::take(&mut arguments.skip),
        }
    }

    /// Whether a test is chosen.
    pub fn contains(&self, name: &str) -> bool {
        let fits = |pattern: &str| {
            if self.exact {
                name == pattern
            } else {
                name.contains(pattern)
            }
        };
        self.filter.as_deref().is_none_or(fits) && !self.skip.iter().any(|pattern| fits(pattern))
    }
}

#[cfg(test)]
mod tests {
    use super::Selection;
    use libtest_mimic::Arguments;

    fn selection(arguments: &[&str]) -> (Selection, Arguments) {
        let mut arguments =
            Arguments::from_iter(std::iter::once("guest").chain(arguments.iter().copied()));
        (Selection::take_from(&mut arguments), arguments)
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
