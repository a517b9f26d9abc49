// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The trace that the device writes with `--trace FILE`.

use crate::clock::Span;
use serde_json::Value;

/// A batch: its cookie, and when which queue executed it, on the host's clock. `None` for what is no batch; jobs have
/// cookies of their own.
pub fn batch(event: &Value) -> Option<(u64, Span)> {
    if event["cat"] != "batch" {
        return None;
    }
    let cookie = event["args"]["cookie"].as_str()?.strip_prefix("0x")?;
    let start = event["ts"].as_f64()?;
    let span = Span {
        track: event["tid"].as_u64()?,
        start,
        end: start + event["dur"].as_f64()?,
    };
    Some((u64::from_str_radix(cookie, 16).ok()?, span))
}

/// The name of a queue, by its number. The device writes them at the beginning.
pub fn queue_names(trace: &[Value]) -> Vec<(u64, String)> {
    (trace.iter())
        .filter(|event| event["name"] == "thread_name")
        .filter_map(|event| {
            let name = event["args"]["name"].as_str()?;
            Some((event["tid"].as_u64()?, name.to_owned()))
        })
        .collect()
}
