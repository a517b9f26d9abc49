// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How far the guest's clock is from the host's.

/// A stretch of time on some clock, microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// The row of the viewer that it is in.
    pub track: u64,
    /// When it begins.
    pub start: f64,
    /// When it ends.
    pub end: f64,
}

/// What must be added to the guest's time to have the host's, microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clock {
    /// The best guess.
    pub offset: f64,
    /// The truth lies within so much of it.
    pub uncertainty: f64,
}

impl Clock {
    /// Compares batches: when the driver submitted each and knew of its end, and when the device executed it. The
    /// device can have started no earlier than the former and ended no later than the latter, so each batch bounds the
    /// offset from both sides. Nothing is known of the offset without a batch.
    pub fn between(batches: &[(Span, Span)]) -> Self {
        let most = batches
            .iter()
            .map(|(guest, device)| device.start - guest.start)
            .fold(f64::INFINITY, f64::min);
        let least = batches
            .iter()
            .map(|(guest, device)| device.end - guest.end)
            .fold(f64::NEG_INFINITY, f64::max);
        Self {
            offset: f64::midpoint(least, most),
            // Negative where the clocks drift by more than a batch takes.
            uncertainty: ((most - least) / 2.0).abs(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Clock, Span};

    fn span(start: f64, end: f64) -> Span {
        Span {
            track: 0,
            start,
            end,
        }
    }

    #[test]
    fn the_tightest_batch_decides() {
        let clock = Clock::between(&[
            (span(0.0, 100.0), span(1040.0, 1050.0)),
            (span(200.0, 212.0), span(1201.0, 1211.0)),
            (span(300.0, 400.0), span(1310.0, 1320.0)),
        ]);
        // From the second: between 999 and 1001.
        assert_eq!(clock.offset, 1000.0);
        assert_eq!(clock.uncertainty, 1.0);
    }
}
