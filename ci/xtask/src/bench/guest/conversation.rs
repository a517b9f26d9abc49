// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Talking to the benchmark's program in the guest while it runs.

use std::io::BufReader;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use hmm_control::bench::{ARGUMENT, Answer, JobSample, Measure, Request, Sample, Side};
use hmm_control::line;
use hmm_vm::guest::{Collected, Command, Guest, Input, Streams};

/// How long one measurement may take. Only a hang takes that long, also under emulation.
const LIMIT: Duration = Duration::from_secs(1200);
/// How often a measurement of the kernel's own driver is tried: it gives up when another task holds a page for a moment.
const TRIES: usize = 4;

/// The program in the guest.
pub(super) struct Conversation {
    requests: UnixStream,
    answers: BufReader<UnixStream>,
}

impl Conversation {
    /// Starts the program, has `talk` talk to it, and ends it.
    pub(super) fn with<R>(
        guest: &mut Guest,
        talk: impl FnOnce(&mut Self) -> anyhow::Result<R>,
    ) -> anyhow::Result<R> {
        let (requests, input) = UnixStream::pair().context("no socket for the guest")?;
        let (answers, output) = UnixStream::pair().context("no socket for the guest")?;
        answers.set_read_timeout(Some(LIMIT))?;
        let complaints = Collected::default();
        let streams = Streams {
            stdin: Input::Reader(Box::new(input)),
            stdout: Box::new(output),
            stderr: Box::new(complaints.clone()),
        };
        let mut conversation = Self {
            requests,
            answers: BufReader::new(answers),
        };
        let (talked, ended) = std::thread::scope(|scope| {
            let program = scope.spawn(|| guest.exec(&Command::new(["/init", ARGUMENT]), streams));
            let talked = talk(&mut conversation);
            // The program ends when there are no more requests. It may have ended before.
            let _ = conversation.requests.shutdown(Shutdown::Both);
            drop(conversation);
            (talked, program.join())
        });
        // A guest that broke is the reason for what went wrong with its program.
        let end =
            ended.map_err(|_| anyhow::anyhow!("the thread that talks to the guest panicked"))??;
        let result =
            talked.with_context(|| format!("in the guest: {}", complaints.text().trim_end()))?;
        ensure!(
            end.shell_code() == 0,
            "the guest's program ended with {end:?}: {}",
            complaints.text().trim_end()
        );
        Ok(result)
    }

    /// Has something done.
    pub(super) fn order(&mut self, request: &Request) -> anyhow::Result<()> {
        match self.ask(request)? {
            Answer::Done => Ok(()),
            other => bail!("{request:?}: {other:?}"),
        }
    }

    /// Measures once.
    pub(super) fn measure(&mut self, what: Measure) -> anyhow::Result<Sample> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.ask(&Request::Measure(what))? {
                Answer::Sample(sample) => return Ok(sample),
                Answer::Failed { .. } if what.side == Side::TestHmm && tries < TRIES => {}
                other => bail!("{what:?}: {other:?}"),
            }
        }
    }

    /// Measures jobs once.
    pub(super) fn measure_jobs(&mut self) -> anyhow::Result<JobSample> {
        match self.ask(&Request::Jobs)? {
            Answer::Jobs(sample) => Ok(*sample),
            other => bail!("jobs: {other:?}"),
        }
    }

    fn ask(&mut self, request: &Request) -> anyhow::Result<Answer> {
        line::write(&mut self.requests, request).context("the program takes no requests")?;
        line::read(&mut self.answers)
            .context("the program does not answer")?
            .context("the program ended before it answered")
    }
}
