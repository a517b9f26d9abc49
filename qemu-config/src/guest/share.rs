// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The socket of the process that shares the host's root folder.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};

use super::run_folder::RunFolder;

/// A socket that listens, and a connection to it that waits to be accepted.
///
/// virtiofsd takes a listening socket and accepts one connection. With both ends made here, there is no
/// path to wait for and no other process can connect: the path is gone when this returns.
pub(super) fn sockets(folder: &RunFolder) -> io::Result<(UnixListener, UnixStream)> {
    let inside = File::open(folder.path())?;
    // The way through the folder's descriptor keeps the path short: the path of a socket may have 107 bytes only.
    let path = format!("/proc/self/fd/{}/share.sock", inside.as_raw_fd());
    let listener = UnixListener::bind(&path)?;
    let connection = UnixStream::connect(&path)?;
    fs::remove_file(&path)?;
    Ok((listener, connection))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn the_connection_is_the_first_to_be_accepted() {
        let runs = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(runs.path(), &"long".repeat(40)).unwrap();
        let (listener, mut connection) = sockets(&folder).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        connection.write_all(b"x").unwrap();
        let mut byte = [0];
        listener.accept().unwrap().0.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x");
    }
}
