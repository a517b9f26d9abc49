// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The host's side of the guest tests: boots guests, follows their results, and reads the kernel's log.
//!
//! A verdict needs three things: a complete plan of results ([`ktap`]), a guest that ended in good order ([`suite`]),
//! and a kernel log without a splat ([`splat`]).

pub mod boots;
pub mod bounce;
pub mod controls;
pub mod ends;
pub mod excerpt;
pub mod ktap;
pub mod load;
pub mod mutants;
pub mod partition;
#[cfg(test)]
mod promises;
pub mod recording;
pub mod restart;
pub mod run;
pub mod selection;
pub mod selftest;
pub mod splat;
pub mod suite;
pub mod timing;
pub mod wrong_devices;
