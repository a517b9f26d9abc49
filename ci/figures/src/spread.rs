// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Many measurements of the same thing.

use serde::Serialize;

/// Measurements of the same thing, in order of size. There is at least one.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Spread(Vec<f64>);

impl Spread {
    /// Takes measurements; `None` without any, or if one of them is no number.
    #[must_use]
    pub fn new(mut values: Vec<f64>) -> Option<Self> {
        if values.is_empty() || values.iter().any(|value| value.is_nan()) {
            return None;
        }
        values.sort_by(f64::total_cmp);
        Some(Self(values))
    }

    /// The value that this part of all (0 to 1) does not exceed.
    #[must_use]
    pub fn at(&self, part: f64) -> f64 {
        let last = self.0.len() - 1;
        // A part beyond the ends is an end.
        let index = (last as f64 * part.clamp(0.0, 1.0)).round() as usize;
        self.0[index]
    }

    /// The one in the middle; of an even number, the mean of the two.
    #[must_use]
    pub fn median(&self) -> f64 {
        let middle = self.0.len() / 2;
        if self.0.len().is_multiple_of(2) {
            f64::midpoint(self.0[middle - 1], self.0[middle])
        } else {
            self.0[middle]
        }
    }

    /// The smallest.
    #[must_use]
    pub fn min(&self) -> f64 {
        self.at(0.0)
    }

    /// The largest.
    #[must_use]
    pub fn max(&self) -> f64 {
        self.at(1.0)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::Spread;

    #[test]
    fn the_median_is_in_the_middle() {
        let spread = Spread::new(vec![3.0, 1.0, 2.0]).unwrap();
        assert_eq!(
            (spread.min(), spread.median(), spread.max()),
            (1.0, 2.0, 3.0)
        );
        assert_eq!(spread.count(), 3);
        assert_eq!(Spread::new(vec![4.0, 1.0, 2.0, 3.0]).unwrap().median(), 2.5);
        assert_eq!(Spread::new(vec![7.0]).unwrap().at(0.25), 7.0);
    }

    #[test]
    fn nothing_and_no_number_have_no_spread() {
        assert_eq!(Spread::new(Vec::new()), None);
        assert_eq!(Spread::new(vec![1.0, f64::NAN]), None);
    }
}
