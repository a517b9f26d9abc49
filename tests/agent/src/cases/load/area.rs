// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A mapping of a worker.

use crate::cases::support::modelled::Modelled;
use crate::cases::support::prelude::*;
use crate::cases::support::random::Random;
use rustix::mm::Advice;
use std::fmt;

/// Most pages of a mapping that is made of single ones.
const MOST_SINGLE: usize = 1500;
/// Most pages of a mapping whose pages have equals.
const MOST_EQUAL: usize = 600;
/// Most huge pages of a mapping.
const MOST_HUGE: usize = 4;
/// Seeds of memory with equal pages.
const EQUAL_SEEDS: u64 = 2;

/// A mapping, and what the kernel was told about it.
#[derive(Debug)]
pub(super) struct Area {
    pub(super) model: Modelled,
    /// Whether the kernel may merge its pages, which keeps them from the device.
    pub(super) mergeable: bool,
    /// Whether it ever might, so that there can be merged pages.
    pub(super) was_mergeable: bool,
}

impl Area {
    /// One of any kind.
    pub(super) fn some(random: &mut Random) -> Result<Self> {
        let model = match random.below(5) {
            0 | 1 => Modelled::new(Memory::huge(1 + random.below(MOST_HUGE))?),
            2 => Modelled::new(Memory::single(1 + random.below(MOST_SINGLE))?),
            3 => Modelled::new(Memory::anonymous(1 + random.below(MOST_SINGLE))?),
            _ => {
                Modelled::new(Memory::single(1 + random.below(MOST_EQUAL))?).with_seeds(EQUAL_SEEDS)
            }
        };
        Ok(Self {
            model,
            mergeable: false,
            was_mergeable: false,
        })
    }

    /// Pages of the mapping.
    pub(super) fn pages(&self) -> usize {
        self.model.memory().pages()
    }

    /// The same mapping, with what became of its memory.
    pub(super) fn map(self, change: impl FnOnce(Modelled) -> Result<Modelled>) -> Result<Self> {
        Ok(Self {
            model: change(self.model)?,
            ..self
        })
    }

    /// Lets the kernel merge its pages from now on, or no longer.
    pub(super) fn toggle_merging(&mut self) -> Result<()> {
        let advice = match self.mergeable {
            true => Advice::LinuxUnmergeable,
            false => Advice::LinuxMergeable,
        };
        self.model.memory().advise(0..self.pages(), advice)?;
        self.mergeable = !self.mergeable;
        self.was_mergeable = true;
        Ok(())
    }
}

impl fmt::Display for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let range = self.model.memory().range();
        let merging = if self.mergeable { ", mergeable" } else { "" };
        write!(f, "{:#x}-{:#x}{merging}", range.start, range.end)
    }
}
