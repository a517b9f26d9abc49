// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What every step of the set-up works with.

use std::path::{Path, PathBuf};

use crate::cache::{Cache, Key};
use crate::packages::{Apt, Closure, Download, Request};
use crate::pins::Pins;
use crate::{Progress, Result, host};

/// The pins, the cache, the mirror and the display of one set-up.
pub(crate) struct Workshop {
    pub(crate) pins: Pins,
    pub(crate) cache: Cache,
    pub(crate) progress: Progress,
    /// The root of the project.
    pub(crate) repository: PathBuf,
    pub(crate) apt: Apt,
    pub(crate) offline: bool,
}

impl Workshop {
    /// The step's folder; see [`Cache::step`]. The host is looked at only when something has to be made.
    pub(crate) fn step(
        &self,
        name: &str,
        key: &Key,
        make: impl FnOnce(&Path) -> Result<Vec<PathBuf>>,
    ) -> Result<PathBuf> {
        self.cache.step(name, key, &self.progress, |work| {
            self.require_host()?;
            make(work)
        })
    }

    /// Downloads packages; see [`Apt::fetch`].
    pub(crate) fn fetch(
        &self,
        name: &str,
        requests: &[Request],
        closure: Closure,
    ) -> Result<Download> {
        self.apt.fetch(name, requests, closure, &self.progress)
    }

    /// The host's packages are installed by one step at a time.
    fn require_host(&self) -> Result<()> {
        static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());
        let _turn = (ONE_AT_A_TIME.lock()).unwrap_or_else(std::sync::PoisonError::into_inner);
        host::ensure(self.offline, &self.progress)
    }

    /// How many jobs `make` runs at once.
    pub(crate) fn jobs(&self) -> usize {
        std::thread::available_parallelism().map_or(1, usize::from) + 1
    }
}
