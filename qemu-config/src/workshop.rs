// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What every step of the set-up works with.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::cache::{Cache, Key};
use crate::host::{self, Task};
use crate::packages::{Apt, Closure, Download, Request};
use crate::pins::Pins;
use crate::{Progress, Result, SetupError};

/// The pins, the cache, the mirror and the display of one set-up.
pub(crate) struct Workshop {
    pub(crate) pins: Pins,
    pub(crate) cache: Cache,
    pub(crate) progress: Progress,
    /// The root of the project.
    pub(crate) repository: PathBuf,
    pub(crate) apt: Apt,
    pub(crate) offline: bool,
    /// Set when one line of the set-up has failed, so that the others do not work on for minutes.
    pub(crate) stop: AtomicBool,
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
            self.go_on()?;
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
        self.go_on()?;
        self.apt.fetch(name, requests, closure, &self.progress)
    }

    /// An error when another line of the set-up has failed. Called before everything that takes long.
    pub(crate) fn go_on(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(SetupError::Stopped);
        }
        Ok(())
    }

    /// Runs one of the lines that are worked on at once; its failure stops the others.
    pub(crate) fn line<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        work().inspect_err(|_| self.stop.store(true, Ordering::Relaxed))
    }

    /// The host's packages are installed by one step at a time.
    fn require_host(&self) -> Result<()> {
        static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());
        let _turn = (ONE_AT_A_TIME.lock()).unwrap_or_else(std::sync::PoisonError::into_inner);
        host::ensure(Task::Setup, self.offline, &self.progress)
    }

    /// How many jobs `make` runs at once.
    pub(crate) fn jobs(&self) -> usize {
        std::thread::available_parallelism().map_or(1, usize::from) + 1
    }
}
