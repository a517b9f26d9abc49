// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest's image: an initramfs.
//!
//! A [`Tree`] says what is in it and is written as one uncompressed archive: QEMU hands it over in one piece of
//! memory, so that packing it would cost more time than it saves.

mod newc;
mod tree;

pub use tree::{Tree, TreeError};
