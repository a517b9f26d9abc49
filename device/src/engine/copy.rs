// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How the bytes of pages are copied.
//!
//! What a processor announces of itself does not predict which routine copies fastest on it. So every
//! [`CopyRoutine`] that it can execute is measured once at the start, for each [`Pattern`] of access, and
//! [`CopyRoutines`] holds the fastest of each.

mod choice;
mod measure;
mod measured;
mod pattern;
mod portable;
#[cfg(target_arch = "x86_64")]
mod prefetch;
mod routine;
mod routines;
#[cfg(target_arch = "x86_64")]
mod x86_64;

pub use self::{
    choice::{CopyChoice, UnknownRoutine},
    measured::Measured,
    pattern::Pattern,
    routine::CopyRoutine,
    routines::CopyRoutines,
};
