// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Output that is kept in memory.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A sink that keeps what the guest writes. All clones have the same bytes: one goes to the guest, another is looked into,
/// also while the guest is still writing.
///
/// # Examples
/// ```
/// use std::io::Write;
///
/// let kept = hmm_vm::guest::Collected::default();
/// let mut sink = kept.clone();
/// sink.write_all(b"cannot open it\n")?;
/// assert_eq!(kept.text(), "cannot open it\n");
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Collected(Arc<Mutex<Vec<u8>>>);

impl Collected {
    /// Everything so far, with a mark in place of what is no text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }

    /// Takes out everything so far.
    #[must_use]
    pub fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.bytes())
    }

    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        // A reader that panicked has added a prefix of its stream, which is still valid.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for Collected {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
