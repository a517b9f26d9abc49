// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What every processor has.

/// A function that copies.
///
/// # Safety
/// Both ranges are mapped for the length, the destination for writing, and they do not overlap. No reference exists
/// to either. The processor has the instructions.
pub(super) type Copy = unsafe fn(*mut u8, *const u8, usize);

/// # Safety
/// As [`Copy`].
#[inline]
pub(super) unsafe fn memcpy(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY: the caller's promise.
    unsafe { std::ptr::copy_nonoverlapping(from, to, len) };
}

/// Orders streaming stores before everything that is stored afterwards.
#[inline]
pub(super) fn flush() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has SSE.
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
    #[cfg(not(target_arch = "x86_64"))]
    std::sync::atomic::fence(std::sync::atomic::Ordering::Release);
}
