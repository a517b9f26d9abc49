// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How a job reaches memory.

use hmm_protocol::FaultAccess;
use vm_memory::VolatileSlice;

use crate::mmu::{Look, Miss};

/// Memory at the virtual addresses of a context. What [`Access::span`] gives is valid for as long as the executor stays inside.
pub trait Access {
    /// The bytes from `address` on, at most `len` (not 0) and at least one: those that lie side by side in this process and
    /// permit `access`.
    ///
    /// # Errors
    /// The first byte cannot be accessed.
    fn span(&self, address: u64, len: u64, access: FaultAccess) -> Result<VolatileSlice<'_>, Miss>;

    /// What is mapped at `address`.
    fn look(&self, address: u64) -> Look;

    /// Whether the work must be interrupted. Ask at least every 20 µs or so.
    fn should_leave(&self) -> bool;
}
