// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! In which ways a device fails.

use super::trial::Trial;
use anyhow::Result;
use hmm_control::Again;

/// What becomes of a device that was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It comes back.
    Hung,
    /// It comes back, is lost again at once, and comes back.
    HungTwice,
    /// A device comes that has other contents. It is refused.
    OtherContents,
    /// None comes.
    NothingReturns,
    /// Its process is killed, and another is started.
    Killed,
    /// That happens again as soon as the device is back.
    KilledTwice,
    /// The process that is started is killed before its device is plugged in, and a third is started.
    KilledDuringRestart,
}

impl Failure {
    /// A device whose users wait as long as the failure asks for.
    pub(super) fn trial(self) -> Result<Trial> {
        match self {
            Self::Hung | Self::HungTwice => Trial::new(),
            Self::OtherContents | Self::NothingReturns => Trial::with_short_wait(),
            Self::Killed | Self::KilledTwice => Trial::of_killed(Again::No),
            Self::KilledDuringRestart => Trial::of_killed(Again::WhileStarting),
        }
    }

    /// Whether what was on the device is there afterwards.
    pub(super) fn keeps_contents(self) -> bool {
        !matches!(self, Self::OtherContents | Self::NothingReturns)
    }

    /// Lets what follows the loss happen.
    pub(super) fn go_on(self, trial: &Trial) -> Result<()> {
        match self {
            Self::Hung | Self::Killed | Self::KilledDuringRestart => trial.come_back(),
            Self::HungTwice | Self::KilledTwice => {
                trial.come_back()?;
                trial.lose_beside_others(|| trial.come_back())
            }
            Self::OtherContents => {
                trial.faults.renew()?;
                trial.is_refused()?;
                trial.wait_until_gone();
                Ok(())
            }
            Self::NothingReturns => {
                trial.wait_until_gone();
                Ok(())
            }
        }
    }
}
