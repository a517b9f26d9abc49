// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! Pure logic of the driver: which device page is free, which pages a fault takes along, how much
//! to move at once, what a process advised, how long things took, what a device may access.
//!
//! Everything here takes `&mut self` and plain data; the driver supplies the locks and has the
//! effects. The same source is tested on the host and compiled into the module.
#![cfg_attr(not(MODULE), no_std)]
#![forbid(unsafe_code)]

mod advice;
mod block;
mod blocks;
mod granule;
mod histogram;
mod pace;
mod queue;
mod victim;
mod window;

pub use advice::{Advice, AdviceEntry, AdviceMap, NoRoom, Side};
pub use block::{Block, KeptPages, BLOCK_PAGES};
pub use blocks::{BlockAllocator, DoubleFree, Run};
pub use granule::{Granule, PageAccess, GRANULE_PAGES};
pub use histogram::{bucket_end, bucket_of, bucket_start, Histogram, BUCKETS};
pub use pace::Pace;
pub use window::{Window, WindowBounds, Windows, WINDOW_LEAST, WINDOW_MOST};
