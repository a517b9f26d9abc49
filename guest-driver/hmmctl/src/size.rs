// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Sizes on the command line.

use parse_size::Config;

/// A text that is no size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected bytes, as in 4096, 64K, 2M or 1G, found '{text}': {source}")]
pub(crate) struct SizeError {
    text: String,
    source: parse_size::Error,
}

/// Bytes: a number, and `K`, `M`, `G` or `T` for powers of 1024.
pub(crate) fn size(text: &str) -> Result<u64, SizeError> {
    (Config::new().with_binary())
        .parse_size(text)
        .map_err(|source| SizeError {
            text: text.to_owned(),
            source,
        })
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn units_are_powers_of_1024() {
        assert_eq!(size("0"), Ok(0));
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("64K"), Ok(64 << 10));
        assert_eq!(size("2M"), Ok(2 << 20));
        assert_eq!(size("3G"), Ok(3 << 30));
        assert_eq!(size("1T"), Ok(1 << 40));
    }

    #[test]
    fn other_text_is_refused() {
        for text in ["", "K", "-1", "1x", "16777216T"] {
            let error = size(text).unwrap_err();
            assert!(error.to_string().contains("as in"), "{text}: {error}");
        }
    }
}
