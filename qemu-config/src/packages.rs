// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Debian packages, without root: a private apt that downloads and verifies, and an unpacker.

mod apt;
mod available;
mod unpack;

pub(crate) use apt::{Apt, Closure, Download, Request, megabytes};
pub(crate) use unpack::{unpack, unpack_whole};
