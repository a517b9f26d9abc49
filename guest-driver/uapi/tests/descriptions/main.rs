// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! What describes the ioctls to others tells of the same numbers, sizes and fields as the crate.

mod c_header;
mod manual;
mod structures;
mod syzlang;
