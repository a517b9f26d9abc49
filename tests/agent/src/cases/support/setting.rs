// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Settings of the kernel.

use crate::cases::case::skip;
use anyhow::{Context, Result};
use std::fs;

/// A setting of the kernel that is undone with the value.
#[derive(Debug)]
pub(in crate::cases) struct Setting {
    file: String,
    before: String,
}

impl Setting {
    /// Writes a value to a file; a skip where there is none.
    fn new(file: String, value: &str) -> Result<Self> {
        let before = fs::read_to_string(&file).map_err(|_| skip(format!("there is no {file}")))?;
        // A choice is shown among all others.
        let chosen = (before.split_once('['))
            .and_then(|(_, rest)| rest.split_once(']'))
            .map(|(chosen, _)| chosen.to_owned());
        let before = chosen.unwrap_or(before);
        fs::write(&file, value).with_context(|| format!("cannot write {value} to {file}"))?;
        Ok(Self { file, before })
    }

    fn all(folder: &str, values: &[(&str, &str)]) -> Result<Vec<Self>> {
        values
            .iter()
            .map(|(name, value)| Self::new(format!("{folder}/{name}"), value))
            .collect()
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        // The guest does not live long.
        let _ = fs::write(&self.file, self.before.trim());
    }
}

/// Has the kernel look for pages that could be huge ones all the time.
pub(in crate::cases) fn khugepaged() -> Result<Vec<Setting>> {
    Setting::all(
        "/sys/kernel/mm/transparent_hugepage/khugepaged",
        &[
            ("scan_sleep_millisecs", "1"),
            ("alloc_sleep_millisecs", "1"),
            ("pages_to_scan", "65536"),
        ],
    )
}

/// Has the kernel look for equal pages: so many, and then it rests for so long.
pub(in crate::cases) fn ksm(pages: u32, rest_ms: u32) -> Result<Vec<Setting>> {
    Setting::all(
        "/sys/kernel/mm/ksm",
        &[
            ("sleep_millisecs", &rest_ms.to_string()),
            ("pages_to_scan", &pages.to_string()),
            // Undoing everything at the end takes another value than stopping.
            ("run", "1"),
        ],
    )
}
