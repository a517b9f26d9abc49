// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How often a device's process is started again.

use std::time::Duration;

/// Time after which a process hangs unless told otherwise.
const USUAL_HANG: Duration = Duration::from_secs(10);
/// How much longer the driver waits. The supervisor asks once a second, and needs a moment to kill the process.
const HANG_MARGIN: Duration = Duration::from_secs(5);
/// Longest time between two starts.
const LONGEST: Duration = Duration::from_secs(30);

/// What is done when a device's process ends unasked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnLoss {
    /// The guest is ended, with an error.
    #[default]
    EndRun,
    /// A new process is started on the same memory.
    Restart(Restarts),
}

/// How a device's process is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restarts {
    /// Most starts in a row; 0: the device stays out of the guest.
    pub attempts: u32,
    /// Time before the second start in a row; doubles with each further one, up to 30 s. The first comes at once.
    pub back_off: Duration,
    /// Time that a process serves after which it counts as the first of a row.
    pub calm: Duration,
    /// Time without an answer after which a process hangs, and is killed; `None`: it never is.
    pub hang: Option<Duration>,
}

impl Default for Restarts {
    fn default() -> Self {
        Self {
            attempts: 5,
            back_off: Duration::from_millis(500),
            calm: Duration::from_secs(10),
            hang: Some(USUAL_HANG),
        }
    }
}

impl Restarts {
    /// What the driver is told where devices are supervised: to leave a device that does not answer to the supervisor, since to start
    /// it anew would end QEMU; and to wait for longer than the supervisor takes to find out that a process hangs. A process that
    /// was stopped for a shorter time goes on, and the driver does not lose it.
    #[must_use]
    pub fn driver_parameters(&self) -> String {
        let hang = self.hang.unwrap_or(USUAL_HANG);
        let timeout = hang.saturating_add(HANG_MARGIN).as_millis();
        format!("restart=0 timeout_ms={}", timeout.min(u32::MAX.into()))
    }

    /// Time before a start after so many others in a row.
    pub(super) fn time_before(&self, others: u32) -> Duration {
        let Some(doublings) = others.checked_sub(1) else {
            return Duration::ZERO;
        };
        let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
        self.back_off
            .saturating_mul(factor)
            .min(LONGEST.max(self.back_off))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_driver_waits_for_longer_than_the_supervisor() {
        let mut restarts = Restarts::default();
        assert_eq!(restarts.driver_parameters(), "restart=0 timeout_ms=15000");
        restarts.hang = Some(Duration::MAX);
        let most = format!("restart=0 timeout_ms={}", u32::MAX);
        assert_eq!(restarts.driver_parameters(), most);
    }

    #[test]
    fn the_time_doubles_up_to_a_bound() {
        let restarts = Restarts::default();
        let times: Vec<u64> = [0, 1, 2, 3, 100]
            .map(|others| restarts.time_before(others).as_millis() as u64)
            .to_vec();
        assert_eq!(times, [0, 500, 1000, 2000, 30_000]);
    }
}
