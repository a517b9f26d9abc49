// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `hmmctl top`: what the device and the processes on it do, live in a terminal, or once for scripts.
//!
//! A *sample* is what was counted at one moment; *rates* are the difference of two. The screen, the text and the JSON are
//! made from these only, so a recording of samples shows the same as the device did.

mod rates;
mod sample;
mod screen;
mod source;
mod text;

pub(crate) use source::named;

use crate::cli;
use crate::output;
use anyhow::{Context, bail};
use rates::Rates;
use sample::Sample;
use source::{Live, Replay, Source};
use std::io::{self, IsTerminal, Write};
use std::path::Path;

/// Shows what happens on the device.
pub(crate) fn top(node: &Path, arguments: &cli::Top) -> anyhow::Result<()> {
    let mut source: Box<dyn Source> = match &arguments.replay {
        Some(file) => Box::new(Replay::open(file, arguments.interval)?),
        None => Box::new(Live::open(node, arguments.interval)?),
    };
    if arguments.once {
        return once(source.as_mut(), arguments);
    }
    if arguments.json {
        return lines(source.as_mut());
    }
    if !io::stdout().is_terminal() {
        bail!("standard output is no terminal; use --once or --json");
    }
    screen::show(source.as_mut(), arguments.interval)
}

/// Prints what happened between two samples.
fn once(source: &mut dyn Source, arguments: &cli::Top) -> anyhow::Result<()> {
    let first = source.next()?.context("there is no sample")?;
    // A recording with one sample has no rates, but says what was where.
    let last = source.next()?.unwrap_or_else(|| first.clone());
    let rates = Rates::between(&first, &last);
    let reply = text::Reply::new(&last, &rates);
    output::print(arguments.json, &reply, |out| {
        text::write(out, &last, &rates)
    })
}

/// Prints samples until the source has no more, or the reader has closed the output.
fn lines(source: &mut dyn Source) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    while let Some(sample) = source.next()? {
        match write_line(&mut out, &sample) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            result => result.context("cannot write to standard output")?,
        }
    }
    Ok(())
}

fn write_line(out: &mut impl Write, sample: &Sample) -> io::Result<()> {
    serde_json::to_writer(&mut *out, sample)?;
    writeln!(out)?;
    out.flush()
}
