// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `hmmctl top` with a recording in place of a device: in a terminal, as text and as JSON.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcgetattr, tcsetwinsize};
use serde_json::{Value, json};
use std::io::Write;
use std::num::NonZero;
use std::process::{Child, Command, Stdio};
use tempfile::NamedTempFile;

const ROWS: NonZero<u16> = NonZero::new(30).unwrap();
const COLUMNS: NonZero<u16> = NonZero::new(110).unwrap();
/// No step of the program takes so long on any machine.
const LIMIT: Timespec = Timespec {
    tv_sec: 100,
    tv_nsec: 0,
};

fn sample(seconds: f64, moved: u64, faults: u64) -> Value {
    json!({
        "seconds": seconds, "node": "/dev/hmm0", "device": "present", "memory_bytes": 64 << 20,
        "counters": {
            "bytes_to_device": moved, "bytes_to_system": 0, "bytes_by_fault": 0, "bytes_by_eviction": 0,
            "resident_bytes": moved, "peak_resident_bytes": moved, "cpu_faults": faults, "batches": 3, "doorbells": 2,
        },
        "skipped": { "pinned": 5 },
        "processes": [{ "pid": 4711, "name": "sorter", "resident_bytes": moved, "limit_bytes": null }],
    })
}

fn recording(samples: &[Value]) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    for sample in samples {
        writeln!(file, "{sample}").unwrap();
    }
    file
}

fn two_samples() -> NamedTempFile {
    recording(&[sample(0.0, 0, 10), sample(2.0, 32 << 20, 20)])
}

fn top(file: &NamedTempFile, options: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hmmctl"));
    command.arg("top").arg("--replay").arg(file.path());
    command.args(options).stdin(Stdio::null());
    command
}

/// The program in a terminal, and what the terminal shows.
struct Session {
    child: Child,
    ours: OwnedFd,
    /// Kept, so that the terminal's settings can be looked at when the program has ended.
    theirs: OwnedFd,
    screen: vt100::Parser,
}

impl Session {
    fn start(file: &NamedTempFile) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let ours = openpt(flags).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let theirs = ioctl_tiocgptpeer(&ours, flags).unwrap();
        let size = Winsize {
            ws_row: ROWS.get(),
            ws_col: COLUMNS.get(),
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&ours, size).unwrap();
        let stream = || Stdio::from(theirs.try_clone().unwrap());
        let child = top(file, &["--interval", "10"])
            .env("TERM", "xterm-256color")
            .stdin(stream())
            .stdout(stream())
            .stderr(stream())
            .spawn()
            .unwrap();
        Self {
            child,
            ours,
            theirs,
            screen: vt100::Parser::new(ROWS, COLUMNS, 0),
        }
    }

    fn shown(&self) -> String {
        self.screen.screen().contents()
    }

    /// Reads what the program writes until `is_enough`.
    fn read_until(&mut self, is_enough: impl Fn(&vt100::Screen) -> bool) {
        while !is_enough(self.screen.screen()) {
            let mut polled = [PollFd::new(&self.ours, PollFlags::IN)];
            assert_eq!(
                poll(&mut polled, Some(&LIMIT)).unwrap(),
                1,
                "{}",
                self.shown()
            );
            let mut bytes = [0; 4096];
            let length = rustix::io::read(&self.ours, &mut bytes).unwrap();
            self.screen.process(&bytes[..length]);
        }
    }

    fn quits_on(mut self, key: &[u8]) {
        self.read_until(|screen| screen.contents().contains("end of the recording"));
        assert!(self.screen.screen().alternate_screen());
        rustix::io::write(&self.ours, key).unwrap();
        self.read_until(|screen| !screen.alternate_screen() && !screen.hide_cursor());
        assert!(self.child.wait().unwrap().success());
        let modes = tcgetattr(&self.theirs).unwrap().local_modes;
        assert!(
            modes.contains(rustix::termios::LocalModes::ICANON | rustix::termios::LocalModes::ECHO)
        );
    }
}

#[test]
fn a_terminal_shows_residency_rates_and_reasons() {
    let file = two_samples();
    let mut session = Session::start(&file);
    session.read_until(|screen| screen.contents().contains("end of the recording"));
    let shown = session.shown();
    for expected in [
        "/dev/hmm0 present",
        "resident 32.0 MiB of 64.0 MiB (50 %)",
        "host to device 16.0 MiB/s",
        "CPU faults",
        "5.0 /s",
        "pinned",
        "4711",
        "sorter",
    ] {
        assert!(shown.contains(expected), "'{expected}' is not in\n{shown}");
    }
    session.quits_on(b"q");
}

#[test]
fn keys_end_it_and_the_terminal_is_as_before() {
    let file = two_samples();
    for key in [b"\x03".as_slice(), b"\x1b"] {
        Session::start(&file).quits_on(key);
    }
}

#[test]
fn once_prints_rates_as_text_and_json() {
    let file = two_samples();
    let output = top(&file, &["--once"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    for expected in [
        "/dev/hmm0 present, resident 32.0 MiB of 64.0 MiB (50 %), highest 32.0 MiB",
        "host to device           16.0 MiB/s       32.0 MiB",
        "CPU faults                   5.0 /s             20",
        "    4711     32.0 MiB         none  sorter",
    ] {
        assert!(text.contains(expected), "'{expected}' is not in\n{text}");
    }
    // Nothing is said of what the recording does not have.
    assert!(!text.contains("device faults"), "{text}");

    let output = top(&file, &["--once", "--json"]).output().unwrap();
    let reply: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(reply["interval_seconds"], 2.0);
    assert_eq!(reply["per_second"]["bytes_to_device"], f64::from(16 << 20));
    assert_eq!(reply["counters"]["cpu_faults"], 20);
    assert_eq!(reply["processes"][0]["pid"], 4711);
}

#[test]
fn a_recording_of_a_recording_is_the_same() {
    let file = two_samples();
    let output = top(&file, &["--json"]).output().unwrap();
    assert!(output.status.success());
    let lines = |text: &[u8]| -> Vec<Value> {
        String::from_utf8(text.to_vec())
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    let original = std::fs::read(file.path()).unwrap();
    assert_eq!(lines(&output.stdout), lines(&original));
}

#[test]
fn what_is_no_recording_and_no_terminal_is_refused() {
    let file = recording(&[json!({ "seconds": "none" })]);
    let output = top(&file, &["--once"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(message.contains("line 1 of"), "{message}");

    let output = top(&two_samples(), &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(message.contains("no terminal"), "{message}");

    let output = top(&two_samples(), &["--interval", "1"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}
