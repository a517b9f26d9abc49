// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the driver tells in debugfs. Only root can read it, and not every kernel has it: then there is nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The device's folder.
fn folder(node: &Path) -> PathBuf {
    let name = node.file_name().unwrap_or_default();
    Path::new("/sys/kernel/debug").join(name)
}

/// The counters by name, but those of skipped pages.
pub(crate) fn counters(node: &Path) -> BTreeMap<String, u64> {
    let text = fs::read_to_string(folder(node).join("counters")).unwrap_or_default();
    (text.lines())
        .filter_map(|line| line.split_once(' '))
        .filter(|(name, _)| !name.starts_with("pages_skipped_"))
        .filter_map(|(name, count)| Some((name.to_owned(), count.trim().parse().ok()?)))
        .collect()
}

/// How long steps took: the name of each step, and its lines.
pub(crate) fn times(node: &Path) -> Vec<(String, String)> {
    let mut times: Vec<(String, String)> = fs::read_dir(folder(node).join("times"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let step = entry.file_name().into_string().ok()?;
            Some((step, fs::read_to_string(entry.path()).ok()?))
        })
        .collect();
    times.sort();
    times
}
