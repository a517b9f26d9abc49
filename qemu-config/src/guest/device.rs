// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A device's process while the guest runs.

use std::fs::File;
use std::io::{self, BufReader};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use hmm_control::line;
use serde_json::Value;

use super::layout::control_socket;
use super::run_folder::RunFolder;
use super::service::Service;

/// How long a device's process may take to answer.
const LIMIT: Duration = Duration::from_secs(30);

/// A device's process.
pub(super) struct Device {
    /// Kept for its end: it is killed with the value.
    pub(super) _process: Service,
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
    let mut socket = connect(folder, &control_socket(index))?;
    socket.set_read_timeout(Some(LIMIT))?;
    socket.set_write_timeout(Some(LIMIT))?;
    line::write(&mut socket, request)?;
    line::read(&mut BufReader::new(socket))
        .map_err(io::Error::other)?
        .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// Connects to a socket in the boot's folder. The way through the folder's descriptor keeps the path short: the
/// path of a socket may have 107 bytes only.
fn connect(folder: &RunFolder, name: &str) -> io::Result<UnixStream> {
    let folder = File::open(folder.path())?;
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
