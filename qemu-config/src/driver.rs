// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The driver: from its sources to a module that fits the kernel, and the lints of its sources. And the
//! module that delays functions.

mod build;
mod delays;
mod inputs;
mod lint;
mod module_info;

pub(crate) use build::{STEP, key, module, module_of};
pub(crate) use delays::delays;
pub(crate) use inputs::copy;
pub(crate) use lint::lint;
