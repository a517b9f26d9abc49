// SPDX-License-Identifier: GPL-2.0-only

//! Random numbers.
//!
//! C header: [`include/linux/random.h`](srctree/include/linux/random.h)

use crate::sys::bindings;

/// Bytes that nobody can guess.
pub(crate) fn bytes<const LENGTH: usize>() -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    // SAFETY: The pointer and the length are those of the array.
    unsafe { bindings::get_random_bytes(bytes.as_mut_ptr().cast(), LENGTH) };
    bytes
}
