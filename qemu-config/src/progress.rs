// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a person sees while a step runs: bars on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// How often a step says what it is at where there is no terminal.
const SIGN_OF_LIFE: Duration = Duration::from_secs(30);

/// Announces steps on standard error. Cheap to clone; clones share the display.
#[derive(Clone)]
pub struct Progress {
    started: Instant,
    bars: Option<MultiProgress>,
}

impl Progress {
    /// Bars when standard error is a terminal and `CI` is not set; lines with the seconds since now otherwise.
    #[must_use]
    pub fn new() -> Self {
        let interactive = std::io::stderr().is_terminal() && std::env::var_os("CI").is_none();
        Self {
            started: Instant::now(),
            bars: interactive.then(MultiProgress::new),
        }
    }

    /// Says one line, now.
    pub fn line(&self, text: &str) {
        match &self.bars {
            Some(bars) => bars.suspend(|| eprintln!("{text}")),
            None => eprintln!("[{:7.1}s] {text}", self.started.elapsed().as_secs_f64()),
        }
    }

    /// Announces a step that may take long; the returned handle shows how far it is. `total` is in the step's own
    /// unit (bytes or items) or `None` when it is not known.
    #[must_use = "a step that is dropped is shown as stopped"]
    pub fn step(&self, what: &str, total: Option<u64>) -> Step {
        let bar = match &self.bars {
            Some(bars) => {
                let bar = bars.add(total.map_or_else(ProgressBar::new_spinner, ProgressBar::new));
                bar.set_style(style(total.is_some()));
                bar.set_prefix(what.to_owned());
                bar.enable_steady_tick(Duration::from_millis(200));
                Some(bar)
            }
            None => {
                self.line(&format!("{what} ..."));
                None
            }
        };
        Step {
            progress: self.clone(),
            what: what.to_owned(),
            started: Instant::now(),
            said: Mutex::new(Instant::now()),
            bar,
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

/// The templates are constants of this file, so that one which does not parse falls back to the library's own look.
fn style(bounded: bool) -> ProgressStyle {
    if bounded {
        ProgressStyle::with_template("{prefix:40} [{bar:30}] {percent:>3}% {elapsed}")
            .unwrap_or_else(|_| ProgressStyle::default_bar())
    } else {
        ProgressStyle::with_template("{prefix:40} {spinner} {elapsed} {wide_msg:.dim}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner())
    }
}

/// One announced step.
pub struct Step {
    progress: Progress,
    what: String,
    started: Instant,
    said: Mutex<Instant>,
    bar: Option<ProgressBar>,
}

impl Step {
    /// Sets how much of the total is done.
    pub fn set_position(&self, position: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(position);
        }
    }

    /// Shows what the step is at: on a terminal always, elsewhere now and then, as a sign of life.
    pub fn detail(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.to_owned());
            return;
        }
        let mut said = (self.said.lock()).unwrap_or_else(PoisonError::into_inner);
        if said.elapsed() >= SIGN_OF_LIFE {
            *said = Instant::now();
            self.progress
                .line(&format!("{}: {}", self.what, text.trim()));
        }
    }

    /// Ends the step and says `result` (for example a size) with the seconds that it took.
    pub fn finish(self, result: &str) {
        let seconds = self.started.elapsed().as_secs_f64();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.progress
            .line(&format!("{}: {result}, {seconds:.1} s", self.what));
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
