// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! An argument, a path or a variable: any bytes, written as a plain JSON string where that is possible.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Bytes that are nearly always UTF-8, and arrive unchanged when they are not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Text {
    /// UTF-8.
    Utf8(String),
    /// Anything else.
    Bytes(Vec<u8>),
}

impl Text {
    /// The text as the system takes it.
    #[must_use]
    pub fn into_os_string(self) -> OsString {
        match self {
            Self::Utf8(text) => text.into(),
            Self::Bytes(bytes) => OsString::from_vec(bytes),
        }
    }

    /// The text as a path.
    #[must_use]
    pub fn into_path(self) -> PathBuf {
        self.into_os_string().into()
    }
}

impl<T: AsRef<OsStr> + ?Sized> From<&T> for Text {
    fn from(value: &T) -> Self {
        let value = value.as_ref();
        match value.to_str() {
            Some(text) => Self::Utf8(text.to_owned()),
            None => Self::Bytes(value.as_bytes().to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_survive(bytes: Vec<u8>) {
            let text = Text::from(OsStr::from_bytes(&bytes));
            let json = serde_json::to_string(&text).unwrap();
            let back: Text = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(back.into_os_string().into_vec(), bytes);
        }
    }

    #[test]
    fn plain_text_is_a_plain_string() {
        assert_eq!(
            serde_json::to_string(&Text::from("a b")).unwrap(),
            "\"a b\""
        );
    }
}
