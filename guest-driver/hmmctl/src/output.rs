// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How numbers and replies are printed.

use anyhow::Context;
use hmm_uapi::client::Skipped;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{self, Write};

/// Prints a reply to standard output: as one JSON object, or as the text that `text` writes.
pub(crate) fn print<T: Serialize>(
    json: bool,
    reply: &T,
    text: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    let written = if json {
        serde_json::to_writer_pretty(&mut stdout, reply)
            .map_err(io::Error::from)
            .and_then(|()| writeln!(stdout))
    } else {
        text(&mut stdout)
    };
    match written.and_then(|()| stdout.flush()) {
        // The reader of the output has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("cannot write to standard output"),
    }
}

/// The reasons that occurred, for JSON.
pub(crate) fn skipped_map(skipped: &Skipped) -> BTreeMap<&'static str, u64> {
    skipped.named().collect()
}

/// Skipped pages in one line: `3 (hole 2, pinned 1)`.
pub(crate) fn skipped_line(skipped: &Skipped) -> String {
    if skipped.total() == 0 {
        return "0".to_owned();
    }
    let reasons: Vec<String> = skipped
        .named()
        .map(|(reason, pages)| format!("{reason} {pages}"))
        .collect();
    format!("{} ({})", skipped.total(), reasons.join(", "))
}

/// Bytes with a unit that keeps the number short: `64.0 MiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let power = (bytes.ilog2() / 10).min(6);
    let value = bytes as f64 / (1_u64 << (10 * power)) as f64;
    format!("{value:.1} {}", UNITS[power as usize - 1])
}

#[cfg(test)]
mod tests {
    use super::{bytes, skipped_line, skipped_map};
    use hmm_uapi::client::Skipped;
    use hmm_uapi::{SKIP_REASONS, SkipReason};

    #[test]
    fn sizes_are_short() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(4096), "4.0 KiB");
        assert_eq!(bytes(64 << 20), "64.0 MiB");
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
    }

    #[test]
    fn reasons_are_named() {
        let mut pages = [0; SKIP_REASONS];
        pages[SkipReason::Hole as usize] = 2;
        pages[SkipReason::Pinned as usize] = 1;
        let skipped = Skipped::new(pages);
        assert_eq!(skipped_line(&skipped), "3 (hole 2, pinned 1)");
        assert_eq!(skipped_line(&Skipped::default()), "0");
        let map = skipped_map(&skipped);
        assert_eq!(map.len(), 2);
        assert_eq!(map["pinned"], 1);
    }
}
