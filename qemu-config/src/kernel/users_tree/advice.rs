// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What to do about a tree that does not fit, as text.

/// Of the kernel's interfaces that the driver uses, those that change most between versions.
const INTERFACES: &[&str] = &[
    "migrate_vma",
    "migrate_device",
    "hmm_range",
    "mmu_interval_notifier",
    "dev_pagemap",
    "zone_device",
    "virtqueue",
    "kernel::",
];

/// Options that the driver needs are not set.
pub(super) fn options(missing: &[&str]) -> String {
    let words: String = (missing.iter())
        .map(|option| format!(" --enable {}", option.trim_start_matches("CONFIG_")))
        .collect();
    let mut text = format!(
        "expected {} to be y; enable them and build again: scripts/config{words} && make olddefconfig && make",
        missing.join(", ")
    );
    if missing.contains(&"CONFIG_RUST") {
        text.push_str(
            ". If the configuration drops CONFIG_RUST, `make rustavailable` says what the kernel's build lacks for it, \
             for instance a compiler, bindgen or the source of the standard library",
        );
    }
    if missing.contains(&"CONFIG_HMM_MIRROR") {
        text.push_str(
            ". CONFIG_HMM_MIRROR has no question of its own: CONFIG_TEST_HMM=m, or the driver of a GPU, sets it",
        );
    }
    text
}

/// The C compiler of the tree is not in `place`.
pub(super) fn compiler(built_by: &str, program: &str, place: &str) -> String {
    format!(
        "the tree was built with \"{built_by}\", and {program} is not in {place}. Modules need the same compiler: \
         install it, or build the tree again with one that is there"
    )
}

/// What a compiler said about the driver, and why it may have, for a tree of `release`.
pub(super) fn interfaces(output: &str, release: &str, written_for: &str) -> String {
    let version = |release: &str| -> String {
        let digits = |letter: char| letter.is_ascii_digit() || letter == '.';
        release
            .chars()
            .take_while(|letter| digits(*letter))
            .collect()
    };
    let (tree, driver) = (version(release), version(written_for));
    if tree == driver {
        return output.to_owned();
    }
    let errors: Vec<&str> = (output.lines())
        .filter(|line| line.contains("error"))
        .collect();
    let named: Vec<&str> = (INTERFACES.iter().copied())
        .filter(|interface| errors.iter().any(|line| line.contains(interface)))
        .collect();
    let named = match named.as_slice() {
        [] => String::new(),
        some => format!(" The errors name {}.", some.join(", ")),
    };
    format!(
        "{}\n\nThe driver is written for the interfaces inside Linux {driver}, and this tree is {release}; they change between \
         versions.{named} Take a tree of that version, or change the driver: guest-driver/module/sys and \
         guest-driver/module/c are where it meets the kernel.",
        output.trim_end()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_same_version_are_left_as_they_are() {
        let output = "error: expected `;`";
        assert_eq!(
            interfaces(output, "7.3.4-mine", "7.3.4+deb13-amd64"),
            output
        );
    }

    #[test]
    fn only_interfaces_that_errors_name_are_named() {
        let output =
            "  RUSTC virtqueue.o\nerror: no member named 'pgmap_owner' in 'struct migrate_vma'\n";
        let text = interfaces(output, "7.2.0", "7.3.4+deb13-amd64");
        assert!(text.contains("The errors name migrate_vma. "), "{text}");
        let text = interfaces("error: no such file", "7.2.0", "7.3.4+deb13-amd64");
        assert!(!text.contains("The errors name"), "{text}");
    }

    #[test]
    fn an_option_without_a_question_is_explained() {
        let text = options(&["CONFIG_HMM_MIRROR"]);
        assert!(text.contains("CONFIG_TEST_HMM=m"), "{text}");
    }
}
