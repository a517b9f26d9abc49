// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest's image: an initramfs.
//!
//! A [`Tree`] says what is in it and is written as one uncompressed archive: QEMU hands it over in one piece of
//! memory, so that packing it would cost more time than it saves. A [`Packer`] fills one with programs and what they
//! need.

mod elf;
mod libraries;
mod newc;
mod packer;
mod rooted;
mod tree;

pub use packer::{PackError, Packer};
pub use tree::{Tree, TreeError};
