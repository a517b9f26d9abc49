// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Logs, on standard error.

use std::{
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use thiserror::Error;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{Registry, layer::SubscriberExt, reload, util::SubscriberInitExt};

/// Lets so many lines through in so long; whatever a guest can cause must not fill a disk.
const LIMIT_LINES: u64 = 10;
const LIMIT_PERIOD: Duration = Duration::from_secs(10);

/// The count of one place in the code.
#[derive(Debug, Default)]
pub struct RateLimit {
    state: Mutex<RateState>,
}

#[derive(Debug, Default)]
struct RateState {
    since: Option<Instant>,
    lines: u64,
    suppressed: u64,
}

impl RateLimit {
    /// A count of zero.
    pub const fn new() -> Self {
        Self {
            state: Mutex::new(RateState {
                since: None,
                lines: 0,
                suppressed: 0,
            }),
        }
    }

    /// Whether a line may be written now; if so, how many were not since the last one.
    pub fn pass(&self) -> Option<u64> {
        let mut state = self.state.lock();
        if state
            .since
            .is_none_or(|since| since.elapsed() >= LIMIT_PERIOD)
        {
            state.since = Some(Instant::now());
            state.lines = 0;
        }
        if state.lines >= LIMIT_LINES {
            state.suppressed += 1;
            return None;
        }
        state.lines += 1;
        Some(std::mem::take(&mut state.suppressed))
    }
}

/// A warning about something that a guest or front end can cause at will, at most so often.
macro_rules! warn_limited {
    ($($arguments:tt)*) => {{
        static LIMIT: $crate::logging::RateLimit = $crate::logging::RateLimit::new();
        if let Some(suppressed) = LIMIT.pass() {
            tracing::warn!(suppressed, $($arguments)*);
        }
    }};
}
pub(crate) use warn_limited;

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Changes the level of a running process.
#[derive(Clone)]
pub struct LogLevel {
    handle: reload::Handle<LevelFilter, Registry>,
}

impl LogLevel {
    /// Sets the level: `off`, `error`, `warn`, `info`, `debug` or `trace`.
    ///
    /// # Errors
    /// It is no level, or the log has ended.
    pub fn set(&self, level: &str) -> Result<(), LevelError> {
        let level = parse_level(level)?;
        Ok(self.handle.reload(level)?)
    }
}

/// Why the level is not changed.
#[derive(Debug, Error)]
pub enum LevelError {
    /// It is none.
    #[error("expected off, error, warn, info, debug or trace, found '{0}'")]
    Unknown(String),
    /// The log is not there any more.
    #[error(transparent)]
    Gone(#[from] reload::Error),
}

/// The level of a name.
///
/// # Errors
/// It is none.
pub fn parse_level(level: &str) -> Result<LevelFilter, LevelError> {
    level
        .parse()
        .map_err(|_| LevelError::Unknown(level.to_owned()))
}

/// Starts logging.
///
/// # Errors
/// The process logs already.
pub fn start(level: LevelFilter, format: LogFormat) -> io::Result<LogLevel> {
    let (filter, handle) = reload::Layer::new(level);
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    // The libraries below log through another crate, one line for each thing that a guest does wrong; those lines are
    // not wanted, so nothing bridges the two.
    let started = match format {
        LogFormat::Text => registry.with(lines.with_target(false)).try_init(),
        LogFormat::Json => registry.with(lines.json()).try_init(),
    };
    started.map_err(io::Error::other)?;
    Ok(LogLevel { handle })
}

#[cfg(test)]
mod tests {
    use super::{LIMIT_LINES, RateLimit};

    #[test]
    fn lines_beyond_the_limit_are_counted() {
        let limit = RateLimit::new();
        for _ in 0..LIMIT_LINES {
            assert_eq!(limit.pass(), Some(0));
        }
        for _ in 0..5 {
            assert_eq!(limit.pass(), None);
        }
        let mut state = limit.state.lock();
        state.since = None;
        drop(state);
        assert_eq!(limit.pass(), Some(5));
        assert_eq!(limit.pass(), Some(0));
    }
}
