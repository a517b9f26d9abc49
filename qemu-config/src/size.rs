// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Sizes as people write them.

use std::fmt;
use std::str::FromStr;

use parse_size::Config;
use serde::{Deserialize, Serialize};

/// A number of bytes; written as a number with an optional K, M, G or T for powers of 1024.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ByteSize(u64);

const UNITS: [(char, u32); 4] = [('T', 40), ('G', 30), ('M', 20), ('K', 10)];

impl ByteSize {
    /// A number of MiB.
    #[must_use]
    pub const fn mebibytes(count: u32) -> Self {
        Self((count as u64) << 20)
    }

    /// The number of bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

/// Why a text is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// It is no number of bytes.
    #[error(
        "{text:?} is not a size: {source}; expected a number with an optional K, M, G or T, such as 512M"
    )]
    Parse {
        /// What was given.
        text: String,
        /// What is wrong with it.
        source: parse_size::Error,
    },
    /// Nothing here may be empty.
    #[error("{0:?} is not a size; expected more than no bytes, such as 512M")]
    Zero(String),
}

impl FromStr for ByteSize {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        match Config::new().with_binary().parse_size(text) {
            Ok(0) => Err(SizeError::Zero(text.to_owned())),
            Ok(bytes) => Ok(Self(bytes)),
            Err(source) => Err(SizeError::Parse {
                text: text.to_owned(),
                source,
            }),
        }
    }
}

impl TryFrom<String> for ByteSize {
    type Error = SizeError;

    fn try_from(text: String) -> Result<Self, SizeError> {
        text.parse()
    }
}

impl From<ByteSize> for String {
    fn from(size: ByteSize) -> Self {
        size.to_string()
    }
}

impl fmt::Display for ByteSize {
    /// With the largest unit that leaves a whole number, as QEMU takes it.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, shift) in UNITS {
            if self.0 != 0 && self.0.is_multiple_of(1 << shift) {
                return write!(formatter, "{}{unit}", self.0 >> shift);
            }
        }
        write!(formatter, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written() {
        for (text, bytes, shown) in [
            ("4G", 4 << 30, "4G"),
            ("1536m", 1536 << 20, "1536M"),
            ("64KiB", 64 << 10, "64K"),
            ("2048M", 2 << 30, "2G"),
            ("4097", 4097, "4097"),
        ] {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!((size.bytes(), size.to_string().as_str()), (bytes, shown));
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "G", "-1", "0", "4X", "99999999999999T"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text:?}");
        }
    }
}
