// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! The manual page has every ioctl and every parameter of the module.

use super::structures::expected;

const PAGE: &str = include_str!("../../man/virtio_hmm.4");
const MODULE: &str = include_str!("../../../module/virtio_hmm.rs");

#[test]
fn every_ioctl_is_in_the_manual() {
    for structure in expected() {
        let line = format!(".B HMM_{}", structure.name.to_uppercase());
        assert!(PAGE.lines().any(|found| found == line), "no line {line:?}");
    }
}

#[test]
fn every_parameter_of_the_module_is_in_the_manual() {
    let (_, parameters) = MODULE.split_once("params: {").expect("no parameters");
    // `name: type {` begins a parameter.
    let names: Vec<&str> = parameters
        .lines()
        .filter(|line| line.ends_with('{'))
        .filter_map(|line| line.split_once(':'))
        .map(|(name, _)| name.trim())
        .filter(|name| {
            name.chars()
                .all(|letter| letter == '_' || letter.is_ascii_lowercase())
        })
        .collect();
    assert!(names.contains(&"timeout_ms"), "found {names:?}");
    for name in names {
        let line = format!(".B {name}");
        assert!(PAGE.lines().any(|found| found == line), "no line {line:?}");
    }
}
