// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Sizes on the command line.

/// Bytes: a number, and `K`, `M`, `G` or `T` for powers of 1024.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let expected = || format!("expected bytes, as in 4096, 64K, 2M or 1G, found '{text}'");
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'K') => (&text[..text.len() - 1], 10),
        Some(b'M') => (&text[..text.len() - 1], 20),
        Some(b'G') => (&text[..text.len() - 1], 30),
        Some(b'T') => (&text[..text.len() - 1], 40),
        _ => (text, 0),
    };
    // `parse` would take a sign.
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(expected());
    }
    let number: u64 = digits.parse().map_err(|_| expected())?;
    number.checked_mul(1 << shift).ok_or_else(expected)
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
        for text in ["", "K", "-1", "+1", "1k", "1.5M", "1 M", "16777216T"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
