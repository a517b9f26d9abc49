// SPDX-License-Identifier: GPL-2.0-only

//! Raw bindings: those of the kernel crate, and those that it lacks.

#![allow(
    clippy::all,
    clippy::cast_lossless,
    clippy::ptr_as_ptr,
    clippy::ref_as_ptr,
    clippy::undocumented_unsafe_blocks,
    dead_code,
    improper_ctypes,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unreachable_pub,
    unsafe_op_in_unsafe_fn
)]

use kernel::ffi;
use pin_init::MaybeZeroable;

pub(crate) use kernel::bindings::*;

include!(concat!(
    env!("VIRTIO_HMM_OBJTREE"),
    "/bindings_generated.rs"
));
