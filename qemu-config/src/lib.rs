// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! From pinned packages to a running guest.
//!
//! # Set-up: from the pins to an [`Environment`]
//! [`prepare`] finds or makes everything that a guest needs and returns where it is. Each step is cached under the
//! user's cache folder by the hash of its inputs.

mod environment;
mod error;
mod progress;

pub use environment::{Environment, Kernel, KernelChoice, Launcher, SetupOptions, prepare};
pub use error::{Result, SetupError};
pub use progress::{Progress, Step};
