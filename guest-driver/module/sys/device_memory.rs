// SPDX-License-Identifier: GPL-2.0-only

//! Device-private memory: the physical range, its `struct page`s, and pages as destinations.

mod kept_single;
mod memory_region;
pub(crate) mod owner;
pub(crate) mod page;
pub(crate) mod page_stock;
pub(crate) mod pagemap;
pub(crate) mod placement;
