// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Removes the device's sockets from the file system at the end.
//!
//! The right to remove a file is one to its whole folder, so the device gives it up with all others, and a second process
//! keeps it: this program, started with [`OPTION`] and the paths. It takes one byte from the device, and removes these
//! paths and nothing else. If the device dies without that byte, the sockets stay, and the next device replaces them.

use std::{
    ffi::OsString,
    fs,
    io::{self, Read, Write},
    os::{
        fd::OwnedFd,
        unix::{fs::MetadataExt, net::UnixStream},
    },
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::{Arc, atomic::AtomicBool},
};

use signal_hook::consts::{SIGINT, SIGTERM};

use super::{SandboxError, paths, privileges};

/// The first argument of the process that removes sockets. Their paths follow.
const OPTION: &str = "--remove-sockets-when-told";
/// What it says when it is ready, and what it is told at the end.
const READY: u8 = b'R';
const REMOVE: u8 = b'X';

/// The process that removes sockets; it does when this is dropped.
#[derive(Debug)]
pub struct Remover {
    stream: UnixStream,
}

impl Remover {
    /// Starts it for the sockets at `paths`, which exist.
    ///
    /// # Errors
    /// It could not be started.
    pub fn start(paths: &[&Path]) -> Result<Self, SandboxError> {
        start(paths).map_err(SandboxError::Remover)
    }
}

impl Drop for Remover {
    fn drop(&mut self) {
        // If it has gone, the sockets stay, which the next device copes with.
        if self.stream.write_all(&[REMOVE]).is_ok() {
            // It ends when it is done, and with it the stream.
            let _ = self.stream.read(&mut [0]);
        }
    }
}

fn start(paths: &[&Path]) -> io::Result<Remover> {
    let (mut stream, theirs) = UnixStream::pair()?;
    let output = OwnedFd::from(theirs.try_clone()?);
    // It ends when the stream does, just before this process, so that nothing waits for it.
    Command::new("/proc/self/exe")
        .arg(OPTION)
        .args(paths)
        .stdin(OwnedFd::from(theirs))
        .stdout(output)
        .stderr(Stdio::null())
        .spawn()?;
    let mut ready = [0];
    stream.read_exact(&mut ready)?;
    Ok(Remover { stream })
}

/// Is the process that removes sockets, if this one was started as that. Call it first, and leave if it returns a code.
pub fn remove_if_asked(arguments: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut arguments = arguments.into_iter().skip(1);
    if arguments.next()? != OPTION {
        return None;
    }
    let paths: Vec<PathBuf> = arguments.map(PathBuf::from).collect();
    Some(match remove_when_told(&paths) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    })
}

fn remove_when_told(paths: &[PathBuf]) -> io::Result<()> {
    // A terminal and systemd signal every process of the device. This one ends when the device says so.
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)))?;
    }
    let sockets: Vec<(&PathBuf, fs::Metadata)> = paths
        .iter()
        .filter_map(|path| Some((path, path.symlink_metadata().ok()?)))
        .collect();
    confine(paths).map_err(io::Error::other)?;
    io::stdout().write_all(&[READY])?;
    io::stdout().flush()?;
    let mut told = [0];
    io::stdin().read_exact(&mut told)?;
    if told != [REMOVE] {
        return Ok(());
    }
    for (path, before) in sockets {
        let same = path
            .symlink_metadata()
            .is_ok_and(|now| (now.dev(), now.ino()) == (before.dev(), before.ino()));
        if same {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Gives up all but the right to remove files beside `paths`.
fn confine(paths: &[PathBuf]) -> Result<(), SandboxError> {
    privileges::limit_resources()?;
    privileges::drop_capabilities()?;
    privileges::refuse_debuggers()?;
    let folders: Vec<PathBuf> = paths.iter().map(|path| folder_of(path)).collect();
    paths::close(&folders)
}

/// The folder that `path` is in.
fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}
