// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Unpacked Debian systems: one that QEMU runs from, one that builds the driver, and those that test suites ask for.

mod build;
mod extra;
mod qemu;

pub(crate) use build::{BuildRoot, STEP as BUILD_ROOT_STEP};
pub(crate) use extra::{extra, key as extra_key};
pub(crate) use qemu::{STEP as QEMU_STEP, emulator, host_qemu, key as qemu_key};
