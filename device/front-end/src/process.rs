// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The device's process.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

const HANG: Duration = Duration::from_secs(60);

/// A running device with a folder of its own. It is killed when the test is over.
pub struct Process {
    child: Child,
    /// Its folder.
    pub folder: TempDir,
}

impl Process {
    /// Starts `program` with `--socket-path` and `--control-socket` in a fresh folder, and these arguments.
    pub fn start(program: &str, arguments: &[&str]) -> Self {
        Self::start_in(program, tempfile::tempdir().expect("a folder"), arguments)
    }

    /// The same in a folder that exists.
    pub fn start_in(program: &str, folder: TempDir, arguments: &[&str]) -> Self {
        let mut child = Command::new(program)
            .arg("--socket-path")
            .arg(folder.path().join("socket"))
            .arg("--control-socket")
            .arg(folder.path().join("control"))
            .args(["--log-level", "warn"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut line = String::new();
        let output = child.stdout.take().expect("piped");
        BufReader::new(output)
            .read_line(&mut line)
            .expect("a line of output");
        assert!(line.starts_with("listening on "), "{line:?}");
        Self { child, folder }
    }

    /// The front end's socket.
    pub fn socket(&self) -> PathBuf {
        self.path("socket")
    }

    /// A path in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How long each of its threads has had a processor, by thread id.
    pub fn thread_times(&self) -> BTreeMap<u32, Duration> {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.pid())).expect("threads");
        threads
            .filter_map(|thread| {
                let thread = thread.expect("a thread").file_name();
                let thread: u32 = thread.to_str()?.parse().ok()?;
                // A thread may end meanwhile.
                let path = format!("/proc/{}/task/{thread}/schedstat", self.pid());
                let text = std::fs::read_to_string(path).ok()?;
                let nanoseconds = text.split_whitespace().next()?.parse().ok()?;
                Some((thread, Duration::from_nanos(nanoseconds)))
            })
            .collect()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("the process is there");
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("wait").is_none()
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                return status;
            }
            assert!(started.elapsed() < HANG, "the process does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it with SIGTERM and returns its folder.
    pub fn end(mut self) -> TempDir {
        self.signal(Signal::TERM);
        assert_eq!(self.wait().code(), Some(0));
        let nowhere = tempfile::tempdir().expect("a folder");
        std::mem::replace(&mut self.folder, nowhere)
    }

    /// Kills it and returns its folder.
    pub fn kill(mut self) -> TempDir {
        self.signal(Signal::KILL);
        self.wait();
        let nowhere = tempfile::tempdir().expect("a folder");
        std::mem::replace(&mut self.folder, nowhere)
    }

    /// Sends one command to the control socket and returns the answer.
    pub fn command(&self, command: &str) -> Value {
        command_to(&self.path("control"), command)
    }

    /// The same; the answer must be a good one.
    pub fn command_ok(&self, command: &str) -> Value {
        let answer = self.command(command);
        assert_eq!(answer["ok"], Value::Bool(true), "{command}: {answer}");
        answer
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command_to(path: &Path, command: &str) -> Value {
    let mut stream = UnixStream::connect(path).expect("the control socket");
    stream.set_read_timeout(Some(HANG)).expect("a time-out");
    writeln!(stream, "{command}").expect("write");
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).expect("read");
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"))
}
