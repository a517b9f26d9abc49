// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A trace of our own.

use anyhow::Context;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

const TRACEFS: &str = "/sys/kernel/tracing";
/// How long the trace is left alone between two readings, and its buffer has to last.
const PAUSE: Duration = Duration::from_millis(20);

/// A trace instance with the driver's events only. It is removed with the value.
#[derive(Debug)]
pub(super) struct Instance {
    folder: PathBuf,
}

impl Instance {
    /// Makes one that has room for `buffer` bytes of events for each processor. Nothing is recorded yet.
    pub(super) fn create(buffer: u64) -> anyhow::Result<Self> {
        let name = format!("hmmctl-{}", std::process::id());
        let folder = Path::new(TRACEFS).join("instances").join(name);
        fs::create_dir(&folder).with_context(|| {
            format!(
                "cannot make {}; recording needs tracefs, mounted there, and a kernel with CONFIG_TRACING",
                folder.display()
            )
        })?;
        let instance = Self { folder };
        instance.write("buffer_size_kb", &(buffer / 1024).max(4).to_string())?;
        // One clock for all processors.
        instance.write("trace_clock", "mono")?;
        Ok(instance)
    }

    /// Turns the driver's events on.
    pub(super) fn start(&self) -> anyhow::Result<()> {
        self.write("events/virtio_hmm/enable", "1")
    }

    /// Where marks are written.
    pub(super) fn marker(&self) -> anyhow::Result<File> {
        let path = self.folder.join("trace_marker");
        (OpenOptions::new().write(true).open(&path))
            .with_context(|| format!("cannot open {}", path.display()))
    }

    /// Copies events to `out` until `is_over`, and then what is left: `most` lines at most, and how many there were more.
    pub(super) fn copy_to(
        &self,
        out: &mut impl Write,
        most: Option<u64>,
        is_over: &AtomicBool,
    ) -> anyhow::Result<()> {
        let mut lines = Lines::new(most);
        let path = self.folder.join("trace_pipe");
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let pipe = rustix::fs::open(&path, flags, Mode::empty())
            .with_context(|| format!("cannot open {}", path.display()))?;
        let mut buffer = vec![0; 64 << 10];
        loop {
            // Asked before the trace is read: what came before the end is read after it.
            let is_last = is_over.load(Ordering::Acquire);
            if is_last {
                self.write("events/virtio_hmm/enable", "0")?;
            }
            loop {
                match rustix::io::read(&pipe, &mut buffer) {
                    Ok(0) | Err(Errno::AGAIN) => break,
                    Ok(length) => out
                        .write_all(lines.take(&buffer[..length]))
                        .context("cannot write the recording")?,
                    Err(Errno::INTR) => {}
                    Err(errno) => return Err(errno).context("cannot read the trace"),
                }
            }
            if is_last {
                if lines.lost > 0 {
                    // As the kernel tells of events for which it had no room.
                    writeln!(out, "CPU:0 [LOST {} EVENTS]", lines.lost)
                        .context("cannot write the recording")?;
                }
                return Ok(());
            }
            thread::park_timeout(PAUSE);
        }
    }

    fn write(&self, file: &str, text: &str) -> anyhow::Result<()> {
        let path = self.folder.join(file);
        fs::write(&path, text)
            .with_context(|| format!("cannot write '{text}' to {}", path.display()))
    }
}

/// Lines of the trace, as long as there is room for them.
#[derive(Debug)]
struct Lines {
    room: Option<u64>,
    lost: u64,
}

impl Lines {
    fn new(most: Option<u64>) -> Self {
        Self {
            room: most,
            lost: 0,
        }
    }

    /// The beginning of `text` for which there is room. The kernel hands out whole lines.
    fn take<'a>(&mut self, text: &'a [u8]) -> &'a [u8] {
        let Some(room) = &mut self.room else {
            return text;
        };
        let mut kept = 0;
        for line in text.split_inclusive(|&byte| byte == b'\n') {
            match room.checked_sub(1) {
                Some(less) => {
                    *room = less;
                    kept += line.len();
                }
                None => self.lost = self.lost.saturating_add(1),
            }
        }
        &text[..kept]
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // A file of it that is still open keeps it; it has a name that tells whose it was.
        let _ = fs::remove_dir(&self.folder);
    }
}

#[cfg(test)]
mod tests {
    use super::Lines;

    #[test]
    fn lines_beyond_the_room_are_counted() {
        let mut lines = Lines::new(Some(3));
        assert_eq!(lines.take(b"a\nb\n"), b"a\nb\n");
        assert_eq!(lines.take(b"c\nd\ne\n"), b"c\n");
        assert_eq!(lines.take(b"f\n"), b"");
        assert_eq!(lines.lost, 3);
        let mut all = Lines::new(None);
        assert_eq!(all.take(b"a\nb"), b"a\nb");
        assert_eq!(all.lost, 0);
    }
}
