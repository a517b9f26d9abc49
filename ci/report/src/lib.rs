// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Summaries and pictures of what was recorded of the driver and the device. Nothing here starts or asks anything: all of it
//! is made from text that was written before.
//!
//! - [`guest`]: the driver's trace events. [`device`]: the device's trace. [`clock`]: how far their clocks are apart.
//! - [`recording`]: what `hmmctl record` wrote: the driver's events, where memory was, and counters.
//! - [`summary`]: what profilers of unified memory print.
//! - [`html`]: one file with all of it, for a browser.

pub mod clock;
pub mod device;
pub mod guest;
pub mod html;
pub mod recording;
pub mod summary;
