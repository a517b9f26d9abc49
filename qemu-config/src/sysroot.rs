// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Unpacked Debian systems: one that QEMU runs from, one that builds the driver, those that test suites ask for, and two that
//! packages are made and installed in.

mod build;
mod extra;
mod packaging;
mod qemu;
mod sandbox;

pub(crate) use build::{BuildRoot, STEP as BUILD_ROOT_STEP};
pub(crate) use extra::{extra, key as extra_key};
pub(crate) use packaging::{clean_root, packaging_root};
pub(crate) use qemu::{STEP as QEMU_STEP, emulator, host_qemu, key as qemu_key};
pub(crate) use sandbox::Sandbox;
