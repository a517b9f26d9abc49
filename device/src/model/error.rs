// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What can be wrong with the description of a link.

use thiserror::Error;

/// Why a text describes no link.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LinkError {
    /// A part is neither a preset nor an assignment.
    #[error(
        "expected a preset (pcie3x1 to pcie6x16, cxl2x8, cxl2x16, nvlink-c2c) or latency=TIME,bandwidth=RATE, found '{0}'"
    )]
    Part(String),
    /// A direction is unknown.
    #[error("expected to_device or to_system, found '{0}'")]
    Direction(String),
    /// A quantity is unknown.
    #[error("expected latency or bandwidth, found '{0}'")]
    Quantity(String),
    /// A time is none.
    #[error("expected a time such as 800ns, 2us or 1ms, found '{0}'")]
    Time(String),
    /// A latency is too long.
    #[error("a latency is at most a minute")]
    Latency,
    /// A rate is none.
    #[error("expected bytes a second such as 12.5G or 800M, found '{0}'")]
    Rate(String),
    /// A bandwidth is too small or too large.
    #[error("a bandwidth is from 1K to 1000T")]
    Bandwidth,
}
