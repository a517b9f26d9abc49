// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! When to move which memory, so that the program keeps running: the policies `to-device` and
//! `churn`.
//!
//! Nothing here knows a process or a device. [`Pacer`] repeats: *look* at where the pages are,
//! *learn* from those that came back, *plan* moves, and wait. A [`Target`] does what it asks for:
//! the real one is the mover, and `model` has simulated programs.
//!
//! What bounds the slowdown: a [`budget`] earns a share of the time that the program runs and pays
//! for the time that CPU faults and moves took. Without credit nothing moves to the device. If
//! faults go on although the credit is spent, blocks that pages return from are migrated back in
//! one call, which costs a small part of what a fault for each page costs.

mod block;
mod budget;
#[cfg(test)]
mod model;
mod pacer;
mod page_set;
mod planner;

pub(super) use block::{BlockId, Seen};
pub(super) use pacer::{Pacer, Target, Usage};
pub(super) use page_set::{BLOCK_BYTES, PAGE_BYTES, PageSet};
pub(crate) use planner::Rules;
pub(super) use planner::{Move, Side};
