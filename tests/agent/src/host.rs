// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The way to the host: reports, and questions that the host answers.

use std::collections::HashMap;
use std::fs::File;
use std::sync::mpsc::{self, Sender};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use hmm_control::{Question, Report, line};
use serde_json::Value;

/// How long the host may take to answer.
const LIMIT: Duration = Duration::from_secs(60);

struct Host {
    port: Mutex<File>,
    questions: Mutex<Questions>,
}

#[derive(Default)]
struct Questions {
    last: u64,
    waiting: HashMap<u64, Sender<Result<Value, String>>>,
}

static HOST: OnceLock<Host> = OnceLock::new();

/// Takes the control port. To be called once.
pub(crate) fn connect(port: File) -> Result<()> {
    let host = Host {
        port: Mutex::new(port),
        questions: Mutex::default(),
    };
    HOST.set(host)
        .map_err(|_| anyhow!("the control port is in use"))
}

fn host() -> Result<&'static Host> {
    HOST.get().context("there is no host to talk to")
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A thread that panicked while it held the lock had written a whole line, or none.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells the host something.
pub(crate) fn report(report: &Report) -> Result<()> {
    let mut port = locked(&host()?.port);
    line::write(&mut *port, report).context("the host takes no reports")
}

/// Sends a JSON value to the control socket of a device process on the host and returns its reply.
pub(crate) fn device_request(index: usize, request: Value) -> Result<Value> {
    ask(Question::Device { index, request })
}

/// Asks the host and waits for its answer.
pub(crate) fn ask(question: Question) -> Result<Value> {
    let host = host()?;
    let (sender, answer) = mpsc::channel();
    let id = {
        let mut questions = locked(&host.questions);
        questions.last += 1;
        let id = questions.last;
        questions.waiting.insert(id, sender);
        id
    };
    let result = report(&Report::Ask { id, question }).and_then(|()| {
        answer
            .recv_timeout(LIMIT)
            .map_err(|_| anyhow!("the host did not answer within {} s", LIMIT.as_secs()))
    });
    locked(&host.questions).waiting.remove(&id);
    result?.map_err(|text| anyhow!(text))
}

/// Hands the host's answer to the task that asked.
pub(crate) fn answered(id: u64, answer: Result<Value, String>) -> Result<()> {
    // The task that asked may have given up.
    if let Some(sender) = locked(&host()?.questions).waiting.remove(&id) {
        let _ = sender.send(answer);
    }
    Ok(())
}
