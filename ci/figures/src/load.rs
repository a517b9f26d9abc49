// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What else the machine had to do.

/// The machine's load, averaged over the last minute; `None` where the system does not tell it.
#[must_use]
pub fn load_average() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg")
        .ok()?
        .split(' ')
        .next()?
        .parse()
        .ok()
}
