// SPDX-License-Identifier: GPL-2.0-only

//! Random numbers.
//!
//! C header: [`include/linux/random.h`](srctree/include/linux/random.h)

use crate::sys::bindings;
use kernel::{
    error::to_result,
    prelude::*, //
};

/// Bytes that cannot be guessed. Sleeps until the kernel's generator is seeded.
///
/// # Errors
///
/// `ERESTARTSYS`: a signal came before.
pub(crate) fn secret<const LENGTH: usize>() -> Result<[u8; LENGTH]> {
    let mut bytes = [0; LENGTH];
    // SAFETY: The caller may sleep.
    to_result(unsafe { bindings::wait_for_random_bytes() })?;
    // SAFETY: The pointer and the length are those of the array.
    unsafe { bindings::get_random_bytes(bytes.as_mut_ptr().cast(), LENGTH) };
    Ok(bytes)
}
