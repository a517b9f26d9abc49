// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the benchmarks' figures have in common: how repeated measurements become one number, and what was to be
//! reached.

#![forbid(unsafe_code)]

mod goal;
mod load;
mod spread;

pub use goal::{Goal, Verdict};
pub use load::load_average;
pub use spread::Spread;
