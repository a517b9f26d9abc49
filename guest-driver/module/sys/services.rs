// SPDX-License-Identifier: GPL-2.0-only

//! Services of the kernel that serve every part: slots, reserves, workqueues, signals, trace
//! events, character devices.

pub(crate) mod cpu;
pub(crate) mod eventfd;
pub(crate) mod global;
pub(crate) mod hibernation;
#[cfg(CONFIG_KUNIT)]
pub(crate) mod kunit;
pub(crate) mod log_limit;
pub(crate) mod module_ref;
pub(crate) mod node;
pub(crate) mod process_id;
pub(crate) mod random;
pub(crate) mod reserve;
pub(crate) mod signal;
pub(crate) mod slot;
pub(crate) mod trace;
pub(crate) mod workqueue;
