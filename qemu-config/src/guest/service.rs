// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Processes that serve a guest and live no longer than the one that started them.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{self, Sender};
use std::thread;

use command_fds::{CommandFdExt, FdMapping};
use rustix::process::{
    PidfdFlags, Signal, pidfd_open, pidfd_send_signal, set_parent_process_death_signal,
};

/// A process that serves a guest. It is killed when the value is dropped.
#[derive(Debug)]
pub(super) struct Service {
    handle: OwnedFd,
}

impl Service {
    /// Starts `command` with `fds` under the numbers given and with both outputs in `log`. When it ends, `ended` is
    /// called from another thread.
    pub(super) fn start(
        mut command: Command,
        fds: Vec<(i32, OwnedFd)>,
        log: &File,
        ended: impl FnOnce(io::Result<ExitStatus>) + Send + 'static,
    ) -> io::Result<Self> {
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log.try_clone()?)
            // A group of its own, so that a Ctrl-C on the terminal reaches only us and we decide.
            .process_group(0);
        let mappings = fds
            .into_iter()
            .map(|(child_fd, parent_fd)| FdMapping {
                parent_fd,
                child_fd,
            })
            .collect();
        command
            .fd_mappings(mappings)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        // SAFETY: the closure runs between fork and exec and makes one system call: no memory is allocated and no
        // lock is taken.
        unsafe {
            command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
        }
        let mut child = spawn(command)?;
        let pid = i32::try_from(child.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw)
            .ok_or(io::ErrorKind::InvalidData)?;
        // The child has not been waited for, so that the number is still its own.
        let handle = pidfd_open(pid, PidfdFlags::empty())?;
        thread::Builder::new()
            .name("wait".to_owned())
            .spawn(move || ended(child.wait()))?;
        Ok(Self { handle })
    }

    /// Kills it; one that has ended already is left alone.
    pub(super) fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// Sends it a signal; one that has ended already is left alone.
    pub(super) fn signal(&self, signal: Signal) {
        let _ = pidfd_send_signal(&self.handle, signal);
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.kill();
    }
}

type Order = (Command, Sender<io::Result<Child>>);

/// Starts the command from a thread that lives as long as this process.
///
/// "Parent death" means the death of the *thread* that forked, and a guest may outlive the thread that booted it.
fn spawn(command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<Sender<Order>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, orders) = mpsc::channel::<Order>();
        // Without the thread, the order below fails and says so.
        let _ = thread::Builder::new()
            .name("spawn".to_owned())
            .spawn(move || {
                for (mut command, answer) in orders {
                    let _ = answer.send(command.spawn());
                }
            });
        sender
    });
    let lost = || io::Error::other("the thread that starts processes is gone");
    let (answer, result) = mpsc::channel();
    spawner.send((command, answer)).map_err(|_| lost())?;
    result.recv().map_err(|_| lost())?
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek};
    use std::time::Duration;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    #[test]
    fn its_output_is_logged_and_its_end_is_told() {
        let mut log = tempfile::tempfile().unwrap();
        let (sender, ended) = mpsc::channel();
        let mut command = Command::new("sh");
        command.args(["-c", "echo out; echo err >&2; exit 3"]);
        let _service = Service::start(command, Vec::new(), &log, move |status| {
            sender.send(status).unwrap();
        })
        .unwrap();
        assert_eq!(ended.recv_timeout(LIMIT).unwrap().unwrap().code(), Some(3));
        let mut text = String::new();
        log.rewind().unwrap();
        log.read_to_string(&mut text).unwrap();
        assert_eq!(text, "out\nerr\n");
    }

    #[test]
    fn it_inherits_what_it_is_given_and_dies_with_the_value() {
        use std::os::unix::process::ExitStatusExt;

        let log = tempfile::tempfile().unwrap();
        let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let (sender, ended) = mpsc::channel();
        let mut command = Command::new("sh");
        command.args(["-c", "echo ready >&7; exec sleep 1000"]);
        let service = Service::start(command, vec![(7, theirs.into())], &log, move |status| {
            sender.send(status).unwrap();
        })
        .unwrap();
        let mut word = [0; 6];
        ours.read_exact(&mut word).unwrap();
        assert_eq!(&word, b"ready\n");
        drop(service);
        assert_eq!(
            ended.recv_timeout(LIMIT).unwrap().unwrap().signal(),
            Some(9)
        );
    }
}
