// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Records the driver's events while cases or the benchmark run, and marks which of them run when.
//!
//! The device is not opened for it, and the events of a driver that is loaded anew are turned on again: what is recorded
//! may unload the driver.

use anyhow::{Context, Result};
use hmm_control::recording::{EVENTS, PATH};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// A trace instance of its own, so that cases which use the trace are not disturbed.
const INSTANCE: &str = "/sys/kernel/tracing/instances/hmm-recorder";
/// Events wait so long in the kernel's buffer.
const PAUSE: Duration = Duration::from_millis(20);
/// The kernel's buffer, for each processor.
const BUFFER_KIB: &str = "4096";
/// The folder of the devices that the driver has.
const DEVICES: &str = "/sys/bus/virtio/drivers/virtio_hmm";

/// A recording under way.
pub(super) struct Recorder {
    marker: File,
    is_over: Arc<AtomicBool>,
    writer: JoinHandle<Result<()>>,
}

impl Recorder {
    /// Begins.
    ///
    /// # Errors
    /// The kernel has no tracefs, or the file cannot be written.
    pub(super) fn start() -> Result<Self> {
        let folder = PathBuf::from(INSTANCE);
        fs::create_dir(&folder).with_context(|| format!("cannot make {INSTANCE}"))?;
        let set = |file: &str, text: &str| {
            fs::write(folder.join(file), text).with_context(|| format!("{INSTANCE}/{file}"))
        };
        set("buffer_size_kb", BUFFER_KIB)?;
        // One clock for all processors.
        set("trace_clock", "mono")?;
        let marker = (OpenOptions::new().write(true))
            .open(folder.join("trace_marker"))
            .context("cannot open the trace's marker")?;
        let events = (OpenOptions::new().read(true))
            .custom_flags(libc::O_NONBLOCK)
            .open(folder.join("trace_pipe"))
            .context("cannot open the trace")?;
        let mut file = BufWriter::new(File::create(PATH).context("cannot make the recording")?);
        writeln!(file, "# hmm-record 1")?;
        if let Some(device) = first_device() {
            writeln!(file, "# device {device}")?;
        }
        let is_over = Arc::new(AtomicBool::new(false));
        let writer = Writer {
            events,
            file,
            enable: folder.join("events/virtio_hmm/enable"),
            room: EVENTS,
            lost: 0,
        };
        let until = Arc::clone(&is_over);
        Ok(Self {
            marker,
            is_over,
            writer: thread::spawn(move || writer.run(&until)),
        })
    }

    /// A case begins.
    pub(super) fn begin(&mut self, case: &str) {
        self.mark(&format!("hmm_case: name={case}"));
    }

    /// It has ended; `result` is one word.
    pub(super) fn end(&mut self, case: &str, result: &str) {
        self.mark(&format!("hmm_case_end: name={case} result={result}"));
    }

    fn mark(&mut self, text: &str) {
        // A picture may lack a mark.
        let _ = self.marker.write_all(text.as_bytes());
    }

    /// Ends. The recording is complete then.
    ///
    /// # Errors
    /// It could not be written.
    pub(super) fn finish(self) -> Result<()> {
        let Self {
            marker,
            is_over,
            writer,
        } = self;
        is_over.store(true, Ordering::Release);
        writer.thread().unpark();
        let written = (writer.join()).map_err(|_| anyhow::anyhow!("the recorder panicked"))?;
        drop(marker);
        fs::remove_dir(INSTANCE).context("cannot remove the trace instance")?;
        written
    }
}

/// The device with the first node, which has the lowest number of all that the driver found at its start.
fn first_device() -> Option<String> {
    let names = fs::read_dir(DEVICES).ok()?;
    (names.flatten())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter_map(|name| Some((name.strip_prefix("virtio")?.parse::<u32>().ok()?, name)))
        .min()
        .map(|(_, name)| name)
}

/// What copies events to the file.
struct Writer {
    events: File,
    file: BufWriter<File>,
    enable: PathBuf,
    /// So many more lines are kept.
    room: usize,
    lost: u64,
}

impl Writer {
    fn run(mut self, is_over: &AtomicBool) -> Result<()> {
        loop {
            // Asked before the trace is read: what came before the end is read after it.
            let is_last = is_over.load(Ordering::Acquire);
            if is_last {
                // Without the driver there is nothing to turn off.
                let _ = fs::write(&self.enable, "0");
            } else {
                turn_on(&self.enable);
            }
            self.copy()?;
            if is_last {
                if self.lost > 0 {
                    writeln!(self.file, "CPU:0 [LOST {} EVENTS]", self.lost)?;
                }
                return self.file.flush().context("cannot write the recording");
            }
            thread::park_timeout(PAUSE);
        }
    }

    /// Copies what there is.
    fn copy(&mut self) -> Result<()> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            match self.events.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(length) => self.keep(&buffer[..length])?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("cannot read the trace"),
            }
        }
    }

    /// Keeps the lines for which there is room. The kernel hands out whole lines.
    fn keep(&mut self, text: &[u8]) -> io::Result<()> {
        for line in text.split_inclusive(|&byte| byte == b'\n') {
            // Marks of cases are few, and all are kept.
            let is_mark = line.windows(9).any(|part| part == b" hmm_case");
            if is_mark {
                self.file.write_all(line)?;
            } else if let Some(room) = self.room.checked_sub(1) {
                self.room = room;
                self.file.write_all(line)?;
            } else {
                self.lost = self.lost.saturating_add(1);
            }
        }
        Ok(())
    }
}

/// Turns the events on if they are off, as those of a driver are that was loaded since.
fn turn_on(enable: &Path) {
    // Without the driver there are none.
    if fs::read(enable).is_ok_and(|state| !state.starts_with(b"1")) {
        let _ = fs::write(enable, "1");
    }
}

/// Writes the recording to standard output, or another in its place.
///
/// # Errors
/// There is none, or it cannot be written.
pub(super) fn print(other: Option<String>) -> Result<()> {
    let path = other.as_deref().unwrap_or(PATH);
    let mut file = File::open(path).with_context(|| format!("there is no recording in {path}"))?;
    io::copy(&mut file, &mut io::stdout().lock()).context("cannot write the recording")?;
    Ok(())
}
