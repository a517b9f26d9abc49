// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A fragment of a kernel configuration, and whether a configuration has what it asks for.
//!
//! The kernel's own tools drop an option without a word when something that it depends on is off, so that a kernel may
//! well lack what it was built for.

use super::config_value;

/// What a fragment says an option is to be when it is to be off.
const OFF: &str = "n";

/// The options of a fragment with their values.
fn options(fragment: &str) -> impl Iterator<Item = (&str, &str)> {
    fragment
        .lines()
        .filter(|line| line.starts_with("CONFIG_"))
        .filter_map(|line| line.split_once('='))
}

/// What `config` has otherwise than `fragment` wants it, each as a sentence for a person.
pub(super) fn differences(fragment: &str, config: &str) -> Vec<String> {
    options(fragment)
        .filter_map(|(option, wanted)| {
            let wanted = wanted.trim_matches('"');
            let found = config_value(config, option).unwrap_or(OFF);
            (found != wanted).then(|| format!("{option} is to be {wanted} and came out as {found}"))
        })
        .collect()
}

/// Whether a fragment has options at all.
pub(super) fn is_empty(fragment: &str) -> bool {
    options(fragment).next().is_none()
}

#[cfg(test)]
mod tests {
    use super::{differences, is_empty};

    const FRAGMENT: &str = "# Why.\nCONFIG_A=y\nCONFIG_B=m\n\nCONFIG_C=n\nCONFIG_D=\"text\"\n";

    #[test]
    fn what_came_out_as_wanted_is_no_difference() {
        let config =
            "CONFIG_A=y\nCONFIG_B=m\n# CONFIG_C is not set\nCONFIG_D=\"text\"\nCONFIG_E=y\n";
        assert!(differences(FRAGMENT, config).is_empty());
        assert!(!is_empty(FRAGMENT));
        assert!(is_empty("# CONFIG_A is not set\n"));
    }

    #[test]
    fn what_came_out_otherwise_is_named() {
        let config = "CONFIG_AB=y\nCONFIG_B=y\nCONFIG_C=y\n";
        let found = differences(FRAGMENT, config);
        let expected = [
            "CONFIG_A is to be y and came out as n",
            "CONFIG_B is to be m and came out as y",
            "CONFIG_C is to be n and came out as y",
            "CONFIG_D is to be text and came out as n",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn the_project_s_fragment_has_what_the_debug_kernel_is_for() {
        let fragment = include_str!("../../kernel/debug.config");
        for option in [
            "KASAN",
            "PROVE_LOCKING",
            "DEBUG_KMEMLEAK",
            "FAILSLAB",
            "KUNIT",
        ] {
            assert!(
                fragment.contains(&format!("\nCONFIG_{option}=y\n")),
                "{option}"
            );
        }
    }
}
