// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Unpacked Debian systems: one that QEMU runs from, and one that builds the driver.

mod build;
mod qemu;

pub(crate) use build::BuildRoot;
pub(crate) use qemu::{Emulator, emulator};
