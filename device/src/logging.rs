// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Logs, on standard error.

use std::io::{self, IsTerminal};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{Registry, layer::SubscriberExt, reload, util::SubscriberInitExt};

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
    /// A sentence that says what was expected.
    pub fn set(&self, level: &str) -> Result<(), String> {
        let level = parse_level(level)?;
        self.handle.reload(level).map_err(|error| error.to_string())
    }
}

/// The level of a name.
///
/// # Errors
/// A sentence that says what was expected.
pub fn parse_level(level: &str) -> Result<LevelFilter, String> {
    level
        .parse()
        .map_err(|_| format!("expected off, error, warn, info, debug or trace, found '{level}'"))
}

/// Starts logging.
///
/// # Errors
/// Somebody else logs already.
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
