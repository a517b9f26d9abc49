// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The driver's nodes.

use crate::cases::case::skip;
use anyhow::Result;
use std::path::PathBuf;

/// The node of the first device.
pub(in crate::cases) fn first() -> PathBuf {
    PathBuf::from("/dev/hmm0")
}

/// The node of the second device, which not every machine has.
pub(in crate::cases) fn second() -> Result<PathBuf> {
    all()
        .into_iter()
        .nth(1)
        .ok_or_else(|| skip("this machine has one device"))
}

/// Whether the first device is there.
pub(in crate::cases) fn exist() -> bool {
    first().exists()
}

/// The nodes of all devices.
pub(in crate::cases) fn all() -> Vec<PathBuf> {
    (0..)
        .map(|index| PathBuf::from(format!("/dev/hmm{index}")))
        .take_while(|node| node.exists())
        .collect()
}
