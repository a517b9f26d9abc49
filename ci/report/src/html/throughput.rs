// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How many bytes moved a second, in each direction.

use super::{Period, begin};
use crate::guest::GuestEvent;
use serde::Serialize;

/// Columns of a chart.
#[derive(Serialize)]
pub(super) struct Throughput {
    /// The beginning of each interval, milliseconds.
    x: Vec<f64>,
    /// Bytes a second.
    to_device: Vec<f64>,
    to_system: Vec<f64>,
}

/// Into how many intervals the time is divided.
const INTERVALS: usize = 600;

impl Throughput {
    /// Spreads the bytes of each batch evenly over the time that it took.
    pub(super) fn new(events: &[GuestEvent], period: Period) -> Self {
        let length = period.length() / INTERVALS as f64;
        let mut throughput = Self {
            x: (0..=INTERVALS).map(|at| at as f64 * length).collect(),
            to_device: vec![0.0; INTERVALS + 1],
            to_system: vec![0.0; INTERVALS + 1],
        };
        for event in events.iter().filter(|event| event.name == "batch_done") {
            let column = match event.word("direction") {
                "to_device" => &mut throughput.to_device,
                "to_system" => &mut throughput.to_system,
                _ => continue,
            };
            let Some(bytes) = event
                .number("bytes")
                .filter(|_| event.word("result") == "ok")
            else {
                continue;
            };
            let start = period.milliseconds(begin(event));
            let end = period.milliseconds(event.time);
            spread(column, length, start..end, bytes as f64);
        }
        throughput
    }
}

/// Adds `bytes` that moved within `time`, milliseconds, to intervals of `length` milliseconds.
fn spread(column: &mut [f64], length: f64, time: std::ops::Range<f64>, bytes: f64) {
    // As an index, a float saturates.
    let place = |time: f64| ((time / length) as usize).min(INTERVALS - 1);
    let (first, last) = (place(time.start), place(time.end));
    let took = time.end - time.start;
    for (at, interval) in column.iter_mut().enumerate().take(last + 1).skip(first) {
        let begin = time.start.max(at as f64 * length);
        let end = time.end.min((at + 1) as f64 * length);
        let share = match first == last || took <= 0.0 {
            true => 1.0,
            false => ((end - begin) / took).clamp(0.0, 1.0),
        };
        *interval += bytes * share / (length / 1e3);
    }
}

#[cfg(test)]
mod tests {
    use super::{INTERVALS, spread};

    #[test]
    fn no_byte_is_lost_or_counted_twice() {
        for time in [0.0..10.0, 2.5..2.6, 599.0..600.0, 3.0..3.0, 0.0..600.0] {
            let mut column = vec![0.0; INTERVALS + 1];
            spread(&mut column, 1.0, time.clone(), 1e6);
            let sum: f64 = column.iter().map(|rate| rate / 1e3).sum();
            assert!((sum - 1e6).abs() < 1.0, "{time:?}: {sum}");
        }
    }
}
