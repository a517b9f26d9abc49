// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What /proc says about the case's own process.

use anyhow::{Context, Result};
use std::ops::Range;

/// A number of /proc/PID/status or of a mapping in /proc/PID/smaps, bytes.
fn kib(text: &str, name: &str) -> Result<u64> {
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .with_context(|| format!("there is no {name}"))?;
    let number = value.trim().strip_suffix(" kB").context("not in kB")?;
    Ok(number.parse::<u64>()? * 1024)
}

/// A field of a process's status, bytes: `VmRSS`, `RssAnon`, ...
pub(in crate::cases) fn status(pid: i32, name: &str) -> Result<u64> {
    kib(
        &std::fs::read_to_string(format!("/proc/{pid}/status"))?,
        name,
    )
}

/// A field of the mapping at an address, bytes: `AnonHugePages`, `KSM`, ...
pub(in crate::cases) fn smaps(address: u64, name: &str) -> Result<u64> {
    let text = std::fs::read_to_string("/proc/self/smaps")?;
    let mut found = String::new();
    let mut inside = false;
    for line in text.lines() {
        if let Some(range) = mapping_range(line) {
            inside = range.contains(&address);
        } else if inside {
            found.push_str(line);
            found.push('\n');
        }
    }
    kib(&found, name)
}

/// The addresses of the mapping with this name.
pub(in crate::cases) fn mapping_named(name: &str) -> Result<Range<u64>> {
    std::fs::read_to_string("/proc/self/maps")?
        .lines()
        .find(|line| line.ends_with(name))
        .and_then(mapping_range)
        .with_context(|| format!("there is no mapping {name}"))
}

/// The mappings of a process: range and permissions.
pub(in crate::cases) fn mappings(pid: i32) -> Result<Vec<(Range<u64>, String)>> {
    Ok(std::fs::read_to_string(format!("/proc/{pid}/maps"))?
        .lines()
        .filter_map(|line| Some((mapping_range(line)?, line.split(' ').nth(1)?.to_owned())))
        .collect())
}

fn mapping_range(line: &str) -> Option<Range<u64>> {
    let (start, end) = line.split(' ').next()?.split_once('-')?;
    Some(u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?)
}

#[cfg(test)]
mod tests {
    use super::{kib, mapping_named, mapping_range, status};

    #[test]
    fn numbers_are_found_by_their_whole_name() {
        let text = "VmRSS:\t     12 kB\nRssAnon:\t       4 kB\n";
        assert_eq!(kib(text, "VmRSS").unwrap(), 12 << 10);
        assert_eq!(kib(text, "RssAnon").unwrap(), 4 << 10);
        assert!(kib(text, "Rss").is_err());
    }

    #[test]
    fn fields_of_a_mapping_are_no_mapping() {
        assert_eq!(
            mapping_range("7f00-7f10 rw-p 0 00:00 0 "),
            Some(0x7f00..0x7f10)
        );
        assert_eq!(mapping_range("AnonHugePages:         0 kB"), None);
        assert_eq!(mapping_range("VmFlags: rd wr mr mw me ac"), None);
    }

    #[test]
    fn this_process_has_memory() {
        assert!(status(std::process::id().cast_signed(), "VmRSS").unwrap() > 0);
        assert!(!mapping_named("[stack]").unwrap().is_empty());
    }
}
