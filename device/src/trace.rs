// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A trace of all batches, page faults and jobs in the JSON that Chrome's and Perfetto's viewers open. Batches carry the driver's cookie, by
//! which its own trace can be joined.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use hmm_protocol::{Report as JobReport, ReportKind, Status};
use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};
use thiserror::Error;

use crate::engine::Report;

/// No more is written than this.
const MAX_BYTES: u64 = 1 << 30;

/// The trace file, and whether batches go there now.
#[derive(Debug)]
pub struct Trace {
    on: AtomicBool,
    file: Option<Mutex<TraceFile>>,
}

#[derive(Debug)]
struct TraceFile {
    writer: BufWriter<File>,
    bytes: u64,
    dropped: u64,
    /// An instant and what the monotonic clock said then, since `Instant` does not tell.
    origin: (Instant, Duration),
}

/// The trace cannot be turned on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("There is no trace file; start the process with --trace FILE")]
pub struct NoTraceFile;

/// A batch in the trace.
#[derive(Debug)]
pub struct Span<'a> {
    /// The queue's index.
    pub queue: u16,
    /// When its execution began.
    pub started: Instant,
    /// How long it took.
    pub time: Duration,
    /// The name of its first operation, if it got so far.
    pub op: Option<&'static str>,
    /// What became of it.
    pub report: &'a Report,
}

impl Trace {
    /// No trace.
    pub fn none() -> Self {
        Self {
            on: AtomicBool::new(false),
            file: None,
        }
    }

    /// A trace in `file`, which is empty, of `queues` queues with these names.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn new(file: File, queues: &[String]) -> io::Result<Self> {
        let now = clock_gettime(ClockId::Monotonic);
        let mut file = TraceFile {
            writer: BufWriter::new(file),
            bytes: 0,
            dropped: 0,
            origin: (
                Instant::now(),
                Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32),
            ),
        };
        file.write("[\n{\"name\":\"process_name\",\"ph\":\"M\",\"pid\":1,\"args\":{\"name\":\"vhost-user-hmm\"}}")?;
        for (index, name) in queues.iter().enumerate() {
            file.write(&format!(
                ",\n{{\"name\":\"thread_name\",\"ph\":\"M\",\"pid\":1,\"tid\":{index},\"args\":{{\"name\":\"{name}\"}}}}"
            ))?;
        }
        Ok(Self {
            on: AtomicBool::new(true),
            file: Some(Mutex::new(file)),
        })
    }

    /// Turns it on or off.
    ///
    /// # Errors
    /// There is no file.
    pub fn set(&self, on: bool) -> Result<(), NoTraceFile> {
        if self.file.is_none() {
            return Err(NoTraceFile);
        }
        self.on.store(on, Ordering::Relaxed);
        Ok(())
    }

    /// Whether batches are to be recorded.
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Records a batch.
    pub fn record(&self, span: &Span<'_>) {
        let completion = &span.report.completion;
        self.append(span.started, |start| {
            format!(
                ",\n{{\"name\":\"{}\",\"cat\":\"batch\",\"ph\":\"X\",\"pid\":1,\"tid\":{},\"ts\":{start:.3},\"dur\":{:.3},\
                 \"args\":{{\"cookie\":\"{:#x}\",\"status\":\"{}\",\"entries_ok\":{},\"bytes\":{},\"measured_us\":{:.3}}}}}",
                span.op.unwrap_or("batch"),
                span.queue,
                span.time.as_secs_f64() * 1e6,
                completion.cookie.get(),
                span.report.status.name(),
                completion.entries_ok.get(),
                completion.bytes_done.get(),
                span.report.measured.as_secs_f64() * 1e6,
            )
        });
    }

    /// Records a report that was delivered just now: a page fault as an instant, a job as a span that ends now.
    pub fn record_report(&self, queue: u16, report: &JobReport) {
        let time = Duration::from_nanos(report.device_ns.get());
        let now = Instant::now();
        self.append(now.checked_sub(time).unwrap_or(now), |start| {
            let is_fault = report.kind == ReportKind::Fault as u8;
            let (name, shape, args) = if is_fault {
                let (number, access) = (report.value.get(), report.status);
                let args = format!("\"fault\":{number},\"access\":{access}");
                ("fault", "\"ph\":\"i\",\"s\":\"t\"".to_owned(), args)
            } else {
                let status = Status::from_wire(report.status).map_or("unknown", Status::name);
                let args = format!("\"status\":\"{status}\",\"faults\":{}", report.faults.get());
                let dur = time.as_secs_f64() * 1e6;
                ("job", format!("\"ph\":\"X\",\"dur\":{dur:.3}"), args)
            };
            format!(
                ",\n{{\"name\":\"{name}\",\"cat\":\"job\",{shape},\"pid\":1,\"tid\":{queue},\"ts\":{start:.3},\
                 \"args\":{{\"cookie\":\"{:#x}\",\"context\":{},\"address\":\"{:#x}\",\"amount\":{},{args}}}}}",
                report.cookie.get(),
                report.context.get(),
                report.address.get(),
                report.amount.get(),
            )
        });
    }

    /// Appends the event that `event` makes of its start, which is `when`, in microseconds.
    fn append(&self, when: Instant, event: impl FnOnce(f64) -> String) {
        let Some(file) = &self.file else {
            return;
        };
        let mut file = file.lock();
        if file.bytes >= MAX_BYTES {
            file.dropped += 1;
            return;
        }
        let start = when.saturating_duration_since(file.origin.0) + file.origin.1;
        if let Err(error) = file.write(&event(start.as_secs_f64() * 1e6)) {
            self.on.store(false, Ordering::Relaxed);
            tracing::error!(%error, "the trace cannot be written and ends here");
        }
    }

    /// Ends the file, so that it is sound JSON.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn finish(&self) -> io::Result<()> {
        self.on.store(false, Ordering::Relaxed);
        let Some(file) = &self.file else {
            return Ok(());
        };
        let mut file = file.lock();
        if file.dropped > 0 {
            tracing::warn!(
                batches = file.dropped,
                "batches beyond 1 GiB are not in the trace"
            );
        }
        file.write("\n]\n")?;
        file.writer.flush()
    }
}

impl TraceFile {
    fn write(&mut self, text: &str) -> io::Result<()> {
        self.bytes += text.len() as u64;
        self.writer.write_all(text.as_bytes())
    }
}
