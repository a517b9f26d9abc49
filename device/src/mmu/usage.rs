// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What contexts take, as statistics show it.

use serde::Serialize;

/// The contexts of a device now.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct ContextsSnapshot {
    /// How many there are.
    pub present: u64,
    /// Bytes that their page tables take.
    pub table_bytes: u64,
    /// Bytes that page tables may take.
    pub table_bytes_max: u64,
}
