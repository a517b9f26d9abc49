// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A device's process while the guest runs.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufReader};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::Sender;
use std::time::Duration;

use hmm_control::line;
use rustix::fs::{MemfdFlags, memfd_create};
use serde_json::Value;

use super::DeviceSpec;
use super::event::Event;
use super::layout::{self, control_socket, device_name, log_of};
use super::run_folder::RunFolder;
use super::service::Service;
use super::supervision::Supervised;
use crate::Artifacts;
use crate::command_line::CommandLine;
use crate::supervisor::OnLoss;

/// The numbers under which a device's process inherits its connection to QEMU and its memory.
const CONNECTION_FD: i32 = 3;
const MEMORY_FD: i32 = 4;

/// How long a device's process may take to answer.
const LIMIT: Duration = Duration::from_secs(30);

/// A device's process, and the memory that is there without it.
pub(super) struct Device {
    index: usize,
    pub(super) spec: DeviceSpec,
    /// Number of the process, from 1.
    pub(super) run: u32,
    /// Killed with the value.
    pub(super) process: Service,
    pub(super) memory: Option<OwnedFd>,
    /// Nothing if the end of the process ends the guest.
    pub(super) supervised: Option<Supervised>,
}

impl Device {
    /// A device that is about to be plugged in with the guest's start.
    pub(super) fn new(
        index: usize,
        spec: DeviceSpec,
        memory: Option<OwnedFd>,
        process: Service,
    ) -> Self {
        let supervised = match spec.on_loss {
            OnLoss::EndRun => None,
            OnLoss::Restart(restarts) => Some(Supervised::new(restarts)),
        };
        Self {
            index,
            spec,
            run: 1,
            process,
            memory,
            supervised,
        }
    }

    /// What its process is called.
    pub(super) fn process_name(&self) -> String {
        process_name(self.index, self.run)
    }
}

pub(super) fn process_name(index: usize, run: u32) -> String {
    match run {
        1 => device_name(index),
        run => format!("{}-{run}", device_name(index)),
    }
}

/// Memory that outlives the process of a device which is started again, unless the user names a file for it.
pub(super) fn memory(spec: &DeviceSpec) -> io::Result<Option<OwnedFd>> {
    let has_file = |arg: &OsString| arg.to_string_lossy().starts_with("--memory-file");
    if spec.on_loss == OnLoss::EndRun || spec.args.iter().any(has_file) {
        return Ok(None);
    }
    let memory = memfd_create("hmm-device-memory", MemfdFlags::CLOEXEC)?;
    Ok(Some(memory))
}

/// A process that was started.
pub(super) struct Started {
    pub(super) line: CommandLine,
    pub(super) process: Service,
    /// For QEMU.
    pub(super) connection: OwnedFd,
}

/// Starts process number `run` of a device. Its end is told to `sender`.
pub(super) fn start(
    artifacts: &Artifacts,
    folder: &RunFolder,
    sender: &Sender<Event>,
    index: usize,
    spec: &DeviceSpec,
    run: u32,
    memory: &Option<OwnedFd>,
) -> io::Result<Started> {
    let connection = ("--fd", CONNECTION_FD.to_string());
    let line = layout::device(artifacts, spec, index, connection);
    let comes_back = spec.on_loss != OnLoss::EndRun;
    launch(line, folder, sender, index, run, memory, comes_back)
}

/// The options by which a process that [`launch`] starts knows its sockets.
pub(super) fn sockets(index: usize) -> [(&'static str, String); 2] {
    [
        ("--fd", CONNECTION_FD.to_string()),
        ("--control-socket", control_socket(index)),
    ]
}

/// Starts a process whose command has all but its memory. Its end is told to `sender`.
pub(super) fn launch(
    mut line: CommandLine,
    folder: &RunFolder,
    sender: &Sender<Event>,
    index: usize,
    run: u32,
    memory: &Option<OwnedFd>,
    comes_back: bool,
) -> io::Result<Started> {
    let (ours, theirs) = UnixStream::pair()?;
    let mut inherited = vec![(CONNECTION_FD, OwnedFd::from(theirs))];
    if let Some(memory) = memory {
        inherited.push((MEMORY_FD, memory.try_clone()?));
        line.option("--memory-file", format!("/proc/self/fd/{MEMORY_FD}"));
    }
    if comes_back {
        // The front end goes before the device comes back.
        line.arg("--keep-contents");
        // A process that was killed leaves its socket behind.
        match std::fs::remove_file(folder.file(&control_socket(index))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    let name = process_name(index, run);
    let log = folder.create_file(&log_of(&name))?;
    let mut command = line.command();
    command.current_dir(folder.path());
    let sender = sender.clone();
    let process = Service::start(command, inherited, &log, move |status| {
        // The receiver is gone when the guest was given up.
        let _ = sender.send(Event::Ended {
            process: name,
            status,
        });
    })?;
    Ok(Started {
        line,
        process,
        connection: ours.into(),
    })
}

/// Why a device's process has not answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoAnswer {
    #[error("there is no device {index}: the guest has {devices}")]
    NoDevice { index: usize, devices: usize },
    #[error("the process of device {index} does not answer: {source}")]
    Io { index: usize, source: io::Error },
}

/// Sends `request` to the control socket of a device's process and returns its reply.
pub(super) fn ask(
    devices: &[Device],
    folder: &RunFolder,
    index: usize,
    request: &Value,
) -> Result<Value, NoAnswer> {
    let devices = devices.len();
    if index >= devices {
        return Err(NoAnswer::NoDevice { index, devices });
    }
    exchange(folder, index, request).map_err(|source| NoAnswer::Io { index, source })
}

fn exchange(folder: &RunFolder, index: usize, request: &Value) -> io::Result<Value> {
    let mut socket = connect(folder.path(), &control_socket(index))?;
    socket.set_read_timeout(Some(LIMIT))?;
    socket.set_write_timeout(Some(LIMIT))?;
    line::write(&mut socket, request)?;
    line::read(&mut BufReader::new(socket))
        .map_err(io::Error::other)?
        .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// Connects to a socket in the boot's folder. The way through the folder's descriptor keeps the path short: the
/// path of a socket may have 107 bytes only.
pub(super) fn connect(folder: &Path, name: &str) -> io::Result<UnixStream> {
    let folder = File::open(folder)?;
    UnixStream::connect(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use serde_json::json;

    use super::*;

    #[test]
    fn a_question_is_one_line_and_so_is_the_answer() {
        let runs = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(runs.path(), &"long".repeat(40)).unwrap();
        let inside = File::open(folder.path()).unwrap();
        let path = format!("/proc/self/fd/{}/{}", inside.as_raw_fd(), control_socket(0));
        let listener = UnixListener::bind(path).unwrap();
        std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let request: Value = line::read(&mut BufReader::new(socket.try_clone().unwrap()))
                .unwrap()
                .unwrap();
            line::write(&mut socket, &json!({"echo": request})).unwrap();
        });
        let answer = exchange(&folder, 0, &json!({"command": "ping"})).unwrap();
        assert_eq!(answer, json!({"echo": {"command": "ping"}}));
    }

    #[test]
    fn a_device_that_is_not_there_is_named() {
        let runs = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(runs.path(), "a").unwrap();
        let error = ask(&[], &folder, 2, &json!({})).unwrap_err();
        assert!(
            matches!(
                error,
                NoAnswer::NoDevice {
                    index: 2,
                    devices: 0
                }
            ),
            "{error}"
        );
        assert!(exchange(&folder, 0, &json!({})).is_err());
    }
}
