// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Sizes as users write them: `4096`, `256M`, `2G`. Suffixes are powers of 1024, as QEMU has them.

use parse_size::Config;

/// A text that is no size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a size such as 4096, 256M or 2G, found '{text}': {source}")]
pub struct SizeError {
    text: String,
    source: parse_size::Error,
}

/// Bytes of `text`.
///
/// # Errors
/// A sentence that says what was expected.
pub fn parse_size(text: &str) -> Result<u64, SizeError> {
    (Config::new().with_binary())
        .parse_size(text)
        .map_err(|source| SizeError {
            text: text.to_owned(),
            source,
        })
}

/// `bytes` with the largest suffix that divides it.
pub fn format_size(bytes: u64) -> String {
    for (shift, suffix) in [(40, "T"), (30, "G"), (20, "M"), (10, "K")] {
        if bytes != 0 && bytes.is_multiple_of(1 << shift) {
            return format!("{}{suffix}", bytes >> shift);
        }
    }
    bytes.to_string()
}

#[cfg(test)]
mod tests {
    use super::{format_size, parse_size};

    #[test]
    fn suffixes_are_powers_of_1024() {
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("2k"), Ok(2048));
        assert_eq!(parse_size("256M"), Ok(256 << 20));
        assert_eq!(parse_size("3GiB"), Ok(3 << 30));
        assert_eq!(parse_size("1T"), Ok(1 << 40));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "M", "-1", "12X", "99999999999G", "1 M x"] {
            let error = parse_size(text).unwrap_err();
            assert!(error.to_string().contains("such as"), "{text:?}: {error}");
        }
    }

    #[test]
    fn formatting_reverses_parsing() {
        for bytes in [0, 1, 4096, 2 << 20, 3 << 30, 5 << 40, (1 << 20) + 1] {
            assert_eq!(parse_size(&format_size(bytes)), Ok(bytes));
        }
    }
}
