// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How much of device memory is resident, and how much of that is mapped by huge pages.

use std::{fs::File, os::unix::fs::FileExt};

use serde::Serialize;

use super::mapping::Mapping;

/// What backs device memory.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct BackingReport {
    /// `memfd`, `hugetlb` or `file`.
    pub kind: &'static str,
    /// Whether all pages were touched.
    pub prefaulted: bool,
    /// Bytes that are mapped; absent where the kernel does not tell.
    pub resident_bytes: Option<u64>,
    /// Bytes of those that huge pages map.
    pub huge_bytes: Option<u64>,
}

/// The kernel's account of this process's mappings, opened before a sandbox may forbid it.
#[derive(Debug)]
pub(super) struct Residency {
    account: Option<File>,
}

impl Residency {
    pub(super) fn new() -> Self {
        Self {
            account: File::open("/proc/self/smaps").ok(),
        }
    }

    /// Resident bytes and huge bytes of `mapping`.
    pub(super) fn measure(&self, mapping: &Mapping) -> Option<(u64, u64)> {
        let text = read_all(self.account.as_ref()?)?;
        let (start, len) = mapping.range();
        let (start, end) = (start as u64, start as u64 + len as u64);
        let (mut resident, mut huge, mut inside) = (0, 0, false);
        for line in text.lines() {
            if let Some((from, to)) = address_range(line) {
                // The kernel may have divided the mapping, but not joined it with another file's.
                inside = from >= start && to <= end;
                continue;
            }
            let Some((name, value)) = line.split_once(':') else {
                continue;
            };
            let bytes = || {
                value
                    .trim()
                    .strip_suffix(" kB")
                    .and_then(|number| number.parse::<u64>().ok())
                    .map_or(0, |kilobytes| kilobytes << 10)
            };
            match name {
                "Rss" if inside => resident += bytes(),
                "ShmemPmdMapped" | "FilePmdMapped" if inside => huge += bytes(),
                // Reserved huge pages are not part of the resident set.
                "Shared_Hugetlb" | "Private_Hugetlb" if inside => {
                    resident += bytes();
                    huge += bytes();
                }
                _ => {}
            }
        }
        Some((resident, huge))
    }
}

/// The first line of a mapping: `start-end …` in hexadecimal digits.
fn address_range(line: &str) -> Option<(u64, u64)> {
    let (from, rest) = line.split_once('-')?;
    let (to, _) = rest.split_once(' ')?;
    Some((
        u64::from_str_radix(from, 16).ok()?,
        u64::from_str_radix(to, 16).ok()?,
    ))
}

fn read_all(file: &File) -> Option<String> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 16 << 10];
    loop {
        match file.read_at(&mut buffer, bytes.len() as u64).ok()? {
            0 => return String::from_utf8(bytes).ok(),
            count => bytes.extend_from_slice(&buffer[..count]),
        }
    }
}
