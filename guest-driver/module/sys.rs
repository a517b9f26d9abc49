// SPDX-License-Identifier: GPL-2.0-only

//! What Rust in the kernel lacks, as safe interfaces, in five rooms. This is the only place of the
//! driver with `unsafe` code. Nothing here knows this driver.

pub(crate) mod address_space;
mod bindings;
pub(crate) mod device_memory;
pub(crate) mod migrate;
pub(crate) mod services;
pub(crate) mod virtio;
