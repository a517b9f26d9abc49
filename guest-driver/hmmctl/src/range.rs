// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A range of addresses on the command line.

use std::ops::Range;
use std::str::FromStr;

/// A range of addresses, `START-END`, both hexadecimal with or without `0x`. Whether they are page
/// aligned is the driver's to judge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PageRange(pub(crate) Range<u64>);

impl FromStr for PageRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || {
            format!(
                "expected START-END in hexadecimal, as in 7f12a4000000-7f12a4200000, found '{text}'"
            )
        };
        let (start, end) = text.split_once('-').ok_or_else(expected)?;
        let start = address(start).map_err(|_| expected())?;
        let end = address(end).map_err(|_| expected())?;
        if start >= end {
            return Err(format!("the range {start:#x}-{end:#x} is empty"));
        }
        Ok(Self(start..end))
    }
}

/// An address, hexadecimal with or without `0x`.
pub(crate) fn address(text: &str) -> Result<u64, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    // `from_str_radix` would take a sign.
    (digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .then(|| u64::from_str_radix(digits, 16).ok())
        .flatten()
        .ok_or_else(|| {
            format!("expected an address in hexadecimal, as in 7f12a4000000, found '{text}'")
        })
}

#[cfg(test)]
mod tests {
    use super::PageRange;

    #[test]
    fn takes_what_proc_maps_prints() {
        let range: PageRange = "7f12a4000000-7f12a4200000".parse().unwrap();
        assert_eq!(range.0, 0x7f12_a400_0000..0x7f12_a420_0000);
        assert_eq!("0x1000-0x2000".parse(), Ok(PageRange(0x1000..0x2000)));
    }

    #[test]
    fn refuses_what_is_no_range() {
        for text in [
            "",
            "-",
            "1000",
            "1000-",
            "-2000",
            "2000-1000",
            "1000-1000",
            "+1000-2000",
            "1000-2000-3000",
            "1g-2g",
            "10000000000000000-20000000000000000",
        ] {
            assert!(text.parse::<PageRange>().is_err(), "{text}");
        }
    }
}
