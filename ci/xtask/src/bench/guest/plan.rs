// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is measured, with what it is compared, and what is to be reached.

mod figures;

use hmm_control::bench::{Pages, Return, Side};
use hmm_figures::Goal;

pub(super) use figures::figures;

/// A kernel command line to measure with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Tuning {
    /// As Debian has it: every new page is zeroed, which under emulation takes longer than a copy.
    Default,
    /// Without that, and without mitigations.
    Tuned,
}

impl Tuning {
    pub(super) const ALL: [Self; 2] = [Self::Tuned, Self::Default];

    /// Words for the kernel.
    pub(super) fn append(self) -> &'static [&'static str] {
        match self {
            Self::Default => &[],
            Self::Tuned => &["init_on_alloc=0", "mitigations=off"],
        }
    }

    /// What it is called in reports.
    pub(super) fn name(self) -> String {
        match self {
            Self::Default => "Debian's default".to_owned(),
            Self::Tuned => self.append().join(" "),
        }
    }
}

/// Measurements that are the same but for who does them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Series {
    /// Whether huge pages stay huge on the device: the driver's parameter `huge_pages=1`.
    pub(super) huge: bool,
    pub(super) pages: Pages,
    pub(super) bytes: u64,
    pub(super) back: Return,
}

impl Series {
    /// What is measured, but for how much of it.
    pub(super) fn kind(&self) -> String {
        format!(
            "{}, back by {}",
            match (self.pages, self.huge) {
                (Pages::Single, _) => "4 KiB pages",
                (Pages::Thp, true) => "huge pages",
                (Pages::Thp, false) => "huge pages with huge_pages=0",
            },
            match self.back {
                Return::Migrate => "a call",
                Return::Read => "reading",
                Return::Touch { .. } => "single faults",
            }
        )
    }
}

/// Which time of a measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// To the device.
    ToDevice,
    /// Back, by whatever brings it back.
    Back,
}

/// What a speed is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Against {
    /// The kernel's `test_hmm`, as its calls are.
    TestHmm,
    /// The same, less the time in which it copies the contents to the caller.
    TestHmmLessReadBack,
    /// Our own driver with a device whose copies do nothing: what everything but the copy takes.
    NoCopy,
    /// The host's memcpy.
    Memcpy,
}

impl Against {
    /// What it is called in reports.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::TestHmm => "test_hmm",
            Self::TestHmmLessReadBack => "test_hmm less its read-back",
            Self::NoCopy => "no copies",
            Self::Memcpy => "memcpy",
        }
    }

    fn side(self) -> Option<Side> {
        match self {
            Self::TestHmm | Self::TestHmmLessReadBack => Some(Side::TestHmm),
            Self::NoCopy => Some(Side::NoCopy),
            Self::Memcpy => None,
        }
    }
}

/// A figure to be made.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) name: String,
    pub(super) what: What,
    pub(super) goal: Option<Goal>,
}

/// How a figure is made.
#[derive(Debug, Clone)]
pub(super) enum What {
    /// Bytes a second; the goal is for the ratio to the baseline.
    Speed {
        series: Series,
        part: Part,
        against: Against,
    },
    /// How long a CPU waits for a page; the goal is for the ratio to `test_hmm`.
    Touch { series: Series },
    /// Doorbells for each MiB.
    Doorbells { series: Series, part: Part },
    /// Time for each MiB.
    Cost { series: Series, part: Part },
    /// The most expensive MiB by the cheapest, over all sizes.
    Flatness { sizes: Vec<Series>, part: Part },
}

impl What {
    /// What has to be measured for it.
    pub(super) fn series(&self) -> Vec<Series> {
        match self {
            Self::Speed { series, .. }
            | Self::Touch { series }
            | Self::Doorbells { series, .. }
            | Self::Cost { series, .. } => vec![*series],
            Self::Flatness { sizes, .. } => sizes.clone(),
        }
    }

    /// What is measured beside the driver.
    pub(super) fn baseline(&self) -> Option<Side> {
        match self {
            Self::Speed { against, .. } => against.side(),
            Self::Touch { .. } => Some(Side::TestHmm),
            _ => None,
        }
    }

    /// Whether memcpy has to be measured.
    pub(super) fn wants_memcpy(&self) -> bool {
        matches!(
            self,
            Self::Speed {
                against: Against::Memcpy,
                ..
            }
        )
    }
}
