// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Runs cases one after the other, each in a process of its own and within its time.

use super::case::Case;
use super::hygiene::{self, Leftover};
use super::ktap::{Outcome, Writer};
use super::recorder::Recorder;
use super::stopwatch::Stopwatch;
use super::support::nodes;
use super::{all, bounce, child, control, ends, kunit, leaks, loss, selftest};
use crate::host;
use anyhow::Context;
use hmm_control::Load;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::MemfdFlags;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long the processes of a case that was killed may take to go.
const DEATH_LIMIT: Duration = Duration::from_secs(60);

/// What is marked in the kernel's log after the last case.
const NO_CASE: &str = "(none)";

/// How many cases ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    /// Cases that passed.
    pub(crate) passed: usize,
    /// Cases that failed or hung.
    pub(crate) failed: usize,
    /// Cases that could not run.
    pub(crate) skipped: usize,
    /// Whether the rest was given up.
    pub(crate) bailed_out: bool,
}

/// Runs the cases whose names contain one of the patterns (all, without patterns) and writes KTAP. Cases that would go
/// on for any time go on as `load` says.
///
/// # Errors
/// When the results cannot be written.
pub(crate) fn run(patterns: &[String], load: &Load, ktap: &mut dyn Write) -> io::Result<Summary> {
    let cases: Vec<&Case> = all()
        .filter(|case| case.matches(patterns))
        .chain(
            (selftest::CASES
                .iter()
                .chain(control::CASES)
                .chain(bounce::CASES)
                .chain(loss::restart_cases())
                .chain(ends::CASES))
            .filter(|case| case.is_named(patterns)),
        )
        .collect();
    let mut writer = Writer::start(ktap, cases.len())?;
    let mut summary = Summary::default();
    let mut unit_tests_wanted = true;
    let mut recorder = match load.record {
        true => Some(Recorder::start().map_err(io::Error::other)?),
        false => None,
    };
    for case in cases {
        if unit_tests_wanted && !kunit::reads_results(case) {
            unit_tests_wanted = false;
            if let Err(error) = kunit::not_again() {
                writer.bail_out(&format!("{error:#}"))?;
                summary.bailed_out = true;
                return Ok(summary);
            }
        }
        writer.begin(case.name)?;
        mark(case.name);
        if let Some(recorder) = &mut recorder {
            recorder.begin(case.name);
        }
        let stopwatch = Stopwatch::start();
        let report = execute(case, load).unwrap_or_else(|error| Report {
            outcome: Outcome::Failed,
            remarks: format!("cannot run the case: {error:#}"),
            stuck: false,
        });
        writer.remark(&report.remarks)?;
        // Faults of a case that crashed would hit the next one.
        clear_faults();
        let is_end = ends::CASES.iter().any(|end| end.name == case.name);
        let leftover = if is_end {
            // The guest is not what it was.
            Ok(())
        } else if report.stuck {
            Err(Leftover::Fatal(
                "processes of the case do not die".to_owned(),
            ))
        } else {
            hygiene::check()
        };
        let outcome = match &leftover {
            Ok(()) => report.outcome,
            Err(leftover) => {
                writer.remark(&leftover.to_string())?;
                match report.outcome {
                    Outcome::TimedOut => Outcome::TimedOut,
                    _ => Outcome::Failed,
                }
            }
        };
        if let Some(recorder) = &mut recorder {
            recorder.end(case.name, word(&outcome));
        }
        match outcome {
            Outcome::Passed => summary.passed += 1,
            Outcome::Skipped(_) => summary.skipped += 1,
            Outcome::Failed | Outcome::TimedOut => summary.failed += 1,
        }
        writer.remark(&stopwatch.to_string())?;
        writer.result(case.name, &outcome)?;
        if let Err(Leftover::Fatal(reason)) = leftover {
            summary.bailed_out = true;
            writer.bail_out(&reason)?;
            break;
        }
        if is_end {
            return Ok(summary);
        }
    }
    // The part of the last case ends here.
    mark(NO_CASE);
    if let Some(recorder) = recorder
        && let Err(error) = recorder.finish()
    {
        // The results are right without it.
        tracing::warn!("the recording is not complete: {error:#}");
    }
    if !summary.bailed_out
        && let Err(error) = leaks::look()
    {
        // The host sees no complete boot.
        writer.bail_out(&format!("cannot look for leaks: {error:#}"))?;
        summary.bailed_out = true;
    }
    Ok(summary)
}

/// Says in the kernel's log which case starts. The host shows what follows if the case fails.
fn mark(case: &str) {
    // Without the line a failure is shown without the log.
    let _ = std::fs::write("/dev/kmsg", format!("hmm-agent: case {case}\n"));
}

/// How a case ended, for the recording.
fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Passed => "ok",
        Outcome::Skipped(_) => "skipped",
        Outcome::Failed => "failed",
        Outcome::TimedOut => "timed-out",
    }
}

struct Report {
    outcome: Outcome,
    remarks: String,
    /// Whether processes of the case are left that cannot be killed.
    stuck: bool,
}

fn execute(case: &Case, load: &Load) -> anyhow::Result<Report> {
    let output = memory_file("stdout")?;
    let errors = memory_file("stderr")?;
    let (requests, childs_end) = UnixStream::pair().context("cannot make a socket pair")?;
    let mut process = Command::new("/proc/self/exe")
        .args([child::ARGUMENT, case.name])
        .env(Load::VARIABLE, serde_json::to_string(load)?)
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(childs_end)))
        .stdout(Stdio::from(output.try_clone()?))
        .stderr(Stdio::from(errors.try_clone()?))
        .process_group(0)
        .spawn()
        .context("cannot start the process")?;
    let group = Pid::from_child(&process);
    let limit = case.limit_with(load);
    let status = wait(&mut process, requests, limit)?;
    let mut remarks = String::new();
    if status.is_none() {
        // The kernel says on the console which tasks are blocked and what the processors do. Without the
        // trigger the run goes on without that.
        for trigger in ["w", "l"] {
            let _ = std::fs::write("/proc/sysrq-trigger", trigger);
        }
        remarks.push_str(&format!(
            "killed after {} s; the kernel log has the blocked tasks\n",
            limit.as_secs()
        ));
    }
    let stuck = !kill_all(group, &mut process)?;
    remarks.push_str(&text(errors)?);
    let outcome = match status {
        None => Outcome::TimedOut,
        Some(status) => outcome(status, text(output)?, &mut remarks),
    };
    Ok(Report {
        outcome,
        remarks,
        stuck,
    })
}

fn outcome(status: ExitStatus, output: String, remarks: &mut String) -> Outcome {
    match status.code().and_then(|code| u8::try_from(code).ok()) {
        Some(child::PASSED) => Outcome::Passed,
        Some(child::SKIPPED) => Outcome::Skipped(output.trim().to_owned()),
        _ => {
            if let Some(signal) = status.signal() {
                remarks.push_str(&format!("ended by signal {signal}\n"));
            }
            remarks.push_str(&output);
            Outcome::Failed
        }
    }
}

/// Waits for the case's process and meanwhile hands its requests to the host. `None` when the time is up.
fn wait(
    process: &mut Child,
    requests: UnixStream,
    limit: Duration,
) -> anyhow::Result<Option<ExitStatus>> {
    let handle =
        pidfd_open(Pid::from_child(process), PidfdFlags::empty()).context("cannot open a pidfd")?;
    let mut requests = BufReader::new(requests);
    let mut requests_open = true;
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        let mut events = vec![PollFd::new(&handle, PollFlags::IN)];
        if requests_open {
            events.push(PollFd::new(requests.get_ref(), PollFlags::IN));
        }
        match poll(&mut events, Some(&Timespec::try_from(left)?)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno).context("cannot wait for the case"),
        }
        let ready: Vec<bool> = events
            .iter()
            .map(|event| !event.revents().is_empty())
            .collect();
        if ready[0] {
            return Ok(Some(process.wait()?));
        }
        if ready.get(1) == Some(&true) {
            requests_open = serve(&mut requests)?;
        }
    }
}

/// Hands one request to the host and gives the answer back. Whether more may come.
fn serve(requests: &mut BufReader<UnixStream>) -> anyhow::Result<bool> {
    let mut line = String::new();
    if requests.read_line(&mut line)? == 0 {
        return Ok(false);
    }
    let answer = match answer(&line) {
        Ok(reply) => serde_json::json!({ "reply": reply }),
        Err(error) => serde_json::json!({ "error": format!("{error:#}") }),
    };
    // The process may have died meanwhile.
    Ok(writeln!(requests.get_mut(), "{answer}").is_ok())
}

fn answer(line: &str) -> anyhow::Result<serde_json::Value> {
    host::ask(serde_json::from_str(line).context("no question")?)
}

/// Kills what is left of the case; whether all of it is gone.
fn kill_all(group: Pid, process: &mut Child) -> anyhow::Result<bool> {
    let deadline = Instant::now() + DEATH_LIMIT;
    loop {
        let ended = process.try_wait()?.is_some();
        // Orphans of the case are buried by init. A group that has no member left cannot be killed.
        let group_is_gone = kill_process_group(group, Signal::KILL).is_err();
        if ended && group_is_gone {
            return Ok(true);
        }
        if Instant::now() > deadline {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn clear_faults() {
    for index in 0..nodes::all().len() {
        // Without a control socket there are no faults either.
        let _ = host::device_request(index, serde_json::json!({ "command": "fault-clear" }));
    }
}

fn memory_file(name: &str) -> anyhow::Result<File> {
    let file = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)
        .context("cannot make a file in memory")?;
    Ok(File::from(file))
}

fn text(mut file: File) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
