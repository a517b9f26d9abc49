// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Unpacked Debian systems: one that QEMU runs from, and one that builds the driver.

mod build;
mod qemu;

pub(crate) use build::{BuildRoot, STEP as BUILD_ROOT_STEP};
pub(crate) use qemu::{STEP as QEMU_STEP, emulator, host_qemu, key as qemu_key};
