// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest's side of the benchmark: measures what the host asks for, and says what it saw.
//!
//! Each measurement has a process of its own. It finds fresh memory, and only the process that measures `test_hmm` has
//! that driver's notifier over its address space.

mod fault_stages;
mod jobs;
mod measure;
mod movers;
mod pagemap;
mod prefetch;
mod program;
mod test_hmm;

use super::recorder::Recorder;
use super::support::driver;
use super::support::process::fork;
use anyhow::{Context, Result};
use hmm_control::bench::{Answer, Request, TEST_HMM};
use hmm_control::line;
use std::io::BufReader;

/// Follows the host's requests until there are no more.
pub(super) fn run() -> Result<()> {
    let mut requests = BufReader::new(std::io::stdin());
    let mut recorder = None;
    while let Some(request) = line::read::<Request>(&mut requests)? {
        if let Err(error) = obey(request, &mut recorder) {
            answer(&failed(&error))?;
        }
    }
    recorder.map_or(Ok(()), Recorder::finish)
}

fn obey(request: Request, recorder: &mut Option<Recorder>) -> Result<()> {
    match request {
        Request::Record => {
            *recorder = Some(Recorder::start()?);
            answer(&Answer::Done)
        }
        Request::LoadDriver { parameters } => {
            if driver::is_loaded() {
                driver::unload().context("cannot remove virtio_hmm")?;
            }
            driver::load_with(&parameters)?;
            answer(&Answer::Done)
        }
        Request::LoadTestHmm => {
            crate::modules::load(TEST_HMM, "")?;
            answer(&Answer::Done)
        }
        Request::Jobs => fork(|| {
            answer(&match jobs::measure() {
                Ok(sample) => Answer::Jobs(Box::new(sample)),
                Err(error) => failed(&error),
            })
        })?
        .wait(),
        // A child that crashes has not answered, and its end is the error.
        Request::Measure(what) => fork(|| {
            answer(&match measure::measure(what) {
                Ok(sample) => Answer::Sample(sample),
                Err(error) => failed(&error),
            })
        })?
        .wait(),
    }
}

fn failed(error: &anyhow::Error) -> Answer {
    Answer::Failed {
        reason: format!("{error:#}"),
    }
}

fn answer(answer: &Answer) -> Result<()> {
    let mut output = std::io::stdout().lock();
    line::write(&mut output, answer).context("the host takes no answers")
}
