// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How the guest's clock and the host's belong together.

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

impl Span {
    fn middle(&self) -> f64 {
        f64::midpoint(self.start, self.end)
    }
}

/// How the guest's time becomes the host's: `host = offset + rate * guest`, microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clock {
    /// What is added.
    pub offset: f64,
    /// How much of the host's time passes in a second of the guest's: 1, unless the guest's clock is wrong. A processor that is
    /// emulated on a machine that is itself virtual and stopped for a part of the time may count on meanwhile.
    pub rate: f64,
    /// The truth lies within so much of it.
    pub uncertainty: f64,
}

impl Clock {
    /// Compares batches: when the driver submitted each and knew of its end, and when the device executed it. The
    /// device can have started no earlier than the former and ended no later than the latter, so each batch bounds the
    /// offset from both sides. Where no offset fits all batches, the clocks do not run at the same rate, and the rate that fits
    /// best is taken. Nothing is known without a batch.
    pub fn between(batches: &[(Span, Span)]) -> Self {
        let (even, is_possible) = Self::with_rate(batches, 1.0);
        if is_possible {
            return even;
        }
        let (other, _) = Self::with_rate(batches, rate(batches));
        if other.uncertainty < even.uncertainty {
            other
        } else {
            even
        }
    }

    /// The host's time at a time of the guest's.
    pub fn to_host(&self, guest: f64) -> f64 {
        self.offset + self.rate * guest
    }

    /// The guest's time at a time of the host's.
    pub fn to_guest(&self, host: f64) -> f64 {
        (host - self.offset) / self.rate
    }

    /// The clock with this rate, and whether its offset fits all batches.
    fn with_rate(batches: &[(Span, Span)], rate: f64) -> (Self, bool) {
        let most = batches
            .iter()
            .map(|(guest, device)| device.start - rate * guest.start)
            .fold(f64::INFINITY, f64::min);
        let least = batches
            .iter()
            .map(|(guest, device)| device.end - rate * guest.end)
            .fold(f64::NEG_INFINITY, f64::max);
        let clock = Self {
            offset: f64::midpoint(least, most),
            rate,
            uncertainty: ((most - least) / 2.0).abs(),
        };
        (clock, least <= most)
    }
}

/// The rate at which the middles of all batches are nearest to each other, as squares go; 1 if nothing can be said.
fn rate(batches: &[(Span, Span)]) -> f64 {
    let count = batches.len() as f64;
    let mean = |middle: fn(&(Span, Span)) -> f64| batches.iter().map(middle).sum::<f64>() / count;
    let (guest, device) = (mean(|pair| pair.0.middle()), mean(|pair| pair.1.middle()));
    let (mut products, mut squares) = (0.0, 0.0);
    for pair in batches {
        let off = pair.0.middle() - guest;
        products += off * (pair.1.middle() - device);
        squares += off * off;
    }
    let rate = products / squares;
    // Time does not go backwards, and one batch has no rate.
    match rate.is_finite() && rate > 0.0 {
        true => rate,
        false => 1.0,
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
        assert_eq!(clock.rate, 1.0);
    }

    #[test]
    fn a_guest_whose_clock_runs_fast_is_noticed() {
        // A second of the host's is eight of the guest's, and each batch takes a little longer in the guest.
        let pairs: Vec<(Span, Span)> = (0..100)
            .map(|at| {
                let host = f64::from(at) * 1e5;
                (
                    span(8.0 * host, 8.0 * (host + 30.0)),
                    span(500.0 + host + 10.0, 500.0 + host + 20.0),
                )
            })
            .collect();
        let clock = Clock::between(&pairs);
        assert!((clock.rate - 0.125).abs() < 1e-9, "{clock:?}");
        assert!(clock.uncertainty < 11.0, "{clock:?}");
        assert!((clock.to_host(8e6) - 1_000_500.0).abs() < 1.0);
        assert!((clock.to_guest(clock.to_host(123.0)) - 123.0).abs() < 1e-6);
    }

    #[test]
    fn one_batch_that_does_not_fit_says_nothing_of_the_rate() {
        let clock = Clock::between(&[(span(0.0, 1.0), span(100.0, 200.0))]);
        assert_eq!(clock.rate, 1.0);
        assert!(clock.uncertainty.is_finite());
    }
}
