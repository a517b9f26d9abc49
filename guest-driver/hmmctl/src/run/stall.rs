// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How long CPU faults on device pages took.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a fault counts for where the driver's times cannot be read: more than most take.
const GUESS: Duration = Duration::from_millis(1);

/// Adds up how long CPU faults took, from the driver's own times in debugfs. Where that is not
/// mounted, each fault counts for a guess.
#[derive(Clone, Debug)]
pub(super) struct Stall {
    times: PathBuf,
    faults: u64,
    sum: Duration,
}

impl Stall {
    /// For the device with this node, whose name its folder in debugfs has.
    pub(super) fn new(node: &Path) -> Self {
        let folder = Path::new("/sys/kernel/debug").join(node.file_name().unwrap_or_default());
        Self {
            times: folder.join("times/fault"),
            faults: 0,
            sum: Duration::ZERO,
        }
    }

    /// The time of all faults so far, of which the driver has counted so many.
    pub(super) fn total(&mut self, faults: u64) -> Duration {
        // The file is read only when it must have changed.
        if faults != self.faults {
            let more = faults.saturating_sub(self.faults);
            self.faults = faults;
            self.sum = fs::read_to_string(&self.times)
                .ok()
                .and_then(|text| of_faults(&text))
                .unwrap_or_else(|| {
                    self.sum + GUESS.saturating_mul(u32::try_from(more).unwrap_or(u32::MAX))
                });
        }
        self.sum
    }
}

/// The sum in the text of `times/fault`.
fn of_faults(text: &str) -> Option<Duration> {
    let line = text
        .lines()
        .find(|line| line.starts_with("trigger=cpu_fault count="))?;
    let sum = line
        .split_ascii_whitespace()
        .find_map(|word| word.strip_prefix("sum_ns="))?;
    sum.parse().ok().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::{Stall, of_faults};
    use std::fs;
    use std::time::Duration;

    const TEXT: &str = "\
trigger=cpu_fault count=101 sum_ns=259720604 p50_ns<1048576 p90_ns<8388608 p99_ns<33554432
trigger=cpu_fault from_ns=65536 below_ns=131072 count=1
";

    #[test]
    fn the_sum_is_the_drivers() {
        assert_eq!(of_faults(TEXT), Some(Duration::from_nanos(259_720_604)));
        assert_eq!(of_faults(""), None);
        assert_eq!(of_faults("trigger=cpu_fault count=1 sum_ns=x"), None);
        let folder = tempfile::tempdir().unwrap();
        let times = folder.path().join("fault");
        fs::write(&times, TEXT).unwrap();
        let mut stall = Stall {
            times,
            ..Stall::new("/dev/hmm0".as_ref())
        };
        assert_eq!(stall.total(0), Duration::ZERO);
        assert_eq!(stall.total(101), Duration::from_nanos(259_720_604));
    }

    #[test]
    fn without_debugfs_each_fault_counts_for_a_guess() {
        let mut stall = Stall::new("/dev/no-such-device".as_ref());
        assert_eq!(stall.total(3), Duration::from_millis(3));
        assert_eq!(stall.total(5), Duration::from_millis(5));
    }
}
