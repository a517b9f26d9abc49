// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Questions of a case to the host. The runner hands them on.

use anyhow::{Context, Result, bail, ensure};
use hmm_control::Question;
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

/// Asks, and waits for the answer.
pub(in crate::cases) fn ask(question: &Question) -> Result<Value> {
    let mut stream = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    writeln!(stream, "{}", serde_json::to_string(question)?)?;
    let mut line = String::new();
    let read = BufReader::new(stream).read_line(&mut line)?;
    ensure!(read > 0, "nobody hands questions to the host");
    let answer: Value = serde_json::from_str(&line).context("the answer is no JSON")?;
    match answer.get("error") {
        Some(error) => bail!("{question:?} has no answer: {error}"),
        None => Ok(answer["reply"].clone()),
    }
}
