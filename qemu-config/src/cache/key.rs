// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The hash of everything that a step is made of.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::{Result, SetupError};

/// A finished key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key(String);

impl Key {
    /// All 64 hexadecimal digits.
    pub(crate) fn hex(&self) -> &str {
        &self.0
    }

    /// What folders are called: 128 bits keep paths short and collisions out of reach.
    pub(crate) fn short(&self) -> &str {
        &self.0[..32]
    }
}

/// Collects inputs. Each is preceded by its length, so that no two lists of inputs give the same stream.
pub(crate) struct KeyBuilder(Sha256);

impl KeyBuilder {
    /// Begins with the step's name and the version of the code that makes it; a change of what a step does to the same
    /// inputs needs a new version.
    pub(crate) fn new(name: &str, version: u32) -> Self {
        let mut builder = Self(Sha256::new());
        builder.add(name.as_bytes());
        builder.add(&version.to_le_bytes());
        builder
    }

    /// Adds a text.
    pub(crate) fn text(mut self, text: &str) -> Self {
        self.add(text.as_bytes());
        self
    }

    /// Adds the key of a step that this one uses.
    pub(crate) fn key(self, key: &Key) -> Self {
        self.text(key.hex())
    }

    /// Adds a file's contents under the name that the step knows it by.
    pub(crate) fn file(mut self, name: &str, path: &Path) -> Result<Self> {
        let contents = std::fs::read(path).map_err(SetupError::io("read", path))?;
        self.add(name.as_bytes());
        self.add(&contents);
        Ok(self)
    }

    /// Adds anything that serialises, for example a part of the pins.
    pub(crate) fn value<T: serde::Serialize>(self, value: &T) -> Self {
        // Plain structures of strings always serialise; an error text in their place would still be a stable input.
        let text = serde_json::to_string(value).unwrap_or_else(|error| error.to_string());
        self.text(&text)
    }

    /// The key.
    pub(crate) fn finish(self) -> Key {
        Key(hex(&self.0.finalize()))
    }

    fn add(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }
}

/// SHA-256 of a file, in hexadecimal.
pub(crate) fn sha256_of_file(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(SetupError::io("open", path))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 17];
    loop {
        let read = (file.read(&mut buffer)).map_err(SetupError::io("read", path))?;
        if read == 0 {
            return Ok(hex(&hash.finalize()));
        }
        hash.update(&buffer[..read]);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sha256_of_a_known_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "abc").unwrap();
        assert_eq!(
            sha256_of_file(file.path()).unwrap(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn every_input_changes_the_key() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "one").unwrap();
        let base = || KeyBuilder::new("step", 1).text("a");
        let other = base().finish();
        let keys = [
            base().finish(),
            KeyBuilder::new("step", 2).text("a").finish(),
            KeyBuilder::new("stop", 1).text("a").finish(),
            base().text("").finish(),
            base().key(&other).finish(),
            base().file("name", file.path()).unwrap().finish(),
            base().file("other", file.path()).unwrap().finish(),
        ];
        for (index, key) in keys.iter().enumerate() {
            assert!(!keys[..index].contains(key), "{index}");
        }
        assert_eq!(keys[0], other);
    }

    #[test]
    fn moving_a_border_between_inputs_changes_the_key() {
        let first = KeyBuilder::new("step", 1).text("ab").text("c").finish();
        let second = KeyBuilder::new("step", 1).text("a").text("bc").finish();
        assert_ne!(first, second);
    }
}
