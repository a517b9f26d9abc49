// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `hmmctl job`.

use crate::cli::{self, JobCommand};
use crate::output;
use anyhow::{bail, ensure};
use hmm_uapi::JobState;
use hmm_uapi::client::{Device, JobReport, JobRequest, Process};
use serde::Serialize;
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

#[derive(Serialize)]
struct Reply {
    state: &'static str,
    result: u64,
    amount: u64,
    faults: u64,
    device_ns: u64,
}

/// Begins a job and waits for it, for as long as the user says. A job ends with the file that began it.
pub(crate) fn job(node: &Path, arguments: &cli::Job) -> anyhow::Result<()> {
    let device = Device::open(node)?;
    let mut request = request(&arguments.what)?;
    if arguments.no_fault {
        request = request.without_faults();
    }
    let Process::Id(process) = arguments.pid else {
        bail!("the process is the calling one");
    };
    let id = device.begin_job_for(process, &request)?;
    let report = match arguments.timeout {
        None => device.wait_job(id, None)?,
        Some(limit) => {
            let deadline = Instant::now() + limit;
            loop {
                let left = deadline.saturating_duration_since(Instant::now());
                let report = device.wait_job(id, Some(left))?;
                if report.state != JobState::Running {
                    break report;
                }
                if left == Duration::ZERO {
                    break device.cancel_job(id)?;
                }
            }
        }
    };
    if report.state == JobState::Failed {
        bail!("{}", failure(&report));
    }
    let reply = Reply {
        state: match report.state {
            JobState::Done => "done",
            _ => "cancelled",
        },
        result: report.result,
        amount: report.amount,
        faults: report.faults,
        device_ns: u64::try_from(report.device_time.as_nanos()).unwrap_or(u64::MAX),
    };
    output::print(arguments.json, &reply, |out| {
        writeln!(out, "job                {}", reply.state)?;
        writeln!(out, "result             {0} ({0:#x})", reply.result)?;
        writeln!(out, "{:<18} {}", unit(&arguments.what), reply.amount)?;
        writeln!(out, "device faults      {}", reply.faults)?;
        writeln!(out, "time               {:?}", report.device_time)
    })
}

/// What the device is to do.
fn request(what: &JobCommand) -> anyhow::Result<JobRequest<'static>> {
    Ok(match what {
        JobCommand::Fill { range, value } => JobRequest::fill(range.0.clone(), *value),
        JobCommand::Copy { range, to } => JobRequest::copy(range.0.clone(), *to),
        JobCommand::Crc32c { range } => JobRequest::crc32c(range.0.clone(), 0),
        JobCommand::AtomicAdd {
            range,
            value,
            width,
        } => {
            let Range { start, end } = range.0;
            ensure!(
                (end - start).is_multiple_of(*width),
                "the range {start:#x}-{end:#x} is not one of words of {width} bytes"
            );
            JobRequest::atomic_add(start, (end - start) / width, *width, *value)
        }
        JobCommand::Walk {
            head,
            next,
            value,
            most,
            add,
        } => JobRequest::walk(*head, *next, *value, *most, *add),
        JobCommand::Probe { range, permissions } => {
            JobRequest::probe(range.0.clone(), *permissions)
        }
    })
}

/// What is counted.
fn unit(what: &JobCommand) -> &'static str {
    match what {
        JobCommand::Fill { .. } | JobCommand::Copy { .. } | JobCommand::Crc32c { .. } => "bytes",
        JobCommand::AtomicAdd { .. } => "words",
        JobCommand::Walk { .. } => "nodes",
        JobCommand::Probe { .. } => "pages",
    }
}

/// Why a job failed, for people.
fn failure(report: &JobReport) -> String {
    let reason = match (report.status, report.error) {
        (Some(status), _) => status.name().to_owned(),
        (None, Some(error)) => error.to_string(),
        (None, None) => "for an unknown reason".to_owned(),
    };
    let place = match report.address {
        0 => String::new(),
        address => format!(" at {address:#x}"),
    };
    format!(
        "the job ended with an error: {reason}{place}, after {} of what it had to do",
        report.amount
    )
}

#[cfg(test)]
mod tests {
    use super::{failure, request};
    use crate::cli::JobCommand;
    use hmm_uapi::client::JobReport;
    use hmm_uapi::{JobState, JobStatus};
    use std::time::Duration;

    #[test]
    fn a_failure_names_the_reason_and_the_address() {
        let report = JobReport {
            state: JobState::Failed,
            error: Some(rustix::io::Errno::FAULT),
            status: Some(JobStatus::Forbidden),
            result: 0,
            address: 0x7000,
            program_counter: 0,
            amount: 3,
            device_time: Duration::ZERO,
            faults: 1,
        };
        let text = failure(&report);
        assert!(text.contains("forbidden at 0x7000, after 3"), "{text}");
    }

    #[test]
    fn words_fill_the_range() {
        let add = |range: &str, width| {
            request(&JobCommand::AtomicAdd {
                range: range.parse().unwrap(),
                value: 1,
                width,
            })
        };
        assert!(add("1000-1010", 8).is_ok());
        assert!(add("1000-1014", 4).is_ok());
        assert!(add("1000-1014", 8).is_err());
    }
}
