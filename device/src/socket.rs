// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Unix sockets: bound to a path, or inherited.

use std::{
    io,
    os::{
        fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::{
            fs::FileTypeExt,
            net::{UnixDatagram, UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use rustix::{
    fs::Mode,
    io::{FdFlags, fcntl_setfd},
    net::{AddressFamily, SocketType, sockopt},
    process::umask,
};

use crate::{config::Socket, relay};

/// A listening socket that is removed from the file system when it is dropped.
#[derive(Debug)]
pub(crate) struct BoundListener {
    pub(crate) listener: UnixListener,
    path: Option<PathBuf>,
}

impl Drop for BoundListener {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // Somebody may have removed it already.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// The socket for front ends, before anybody listens to it.
pub(crate) struct Opened {
    name: String,
    kind: Kind,
}

enum Kind {
    Listening(BoundListener),
    Connected(UnixStream),
}

impl Opened {
    /// Its name for people.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The socket on which front ends come, and whether there is only one to come.
    pub(crate) fn listen(self) -> anyhow::Result<(BoundListener, bool)> {
        match self.kind {
            Kind::Listening(listener) => Ok((listener, false)),
            Kind::Connected(stream) => {
                let listener = relay::listen_for(stream)
                    .with_context(|| format!("Cannot serve {}", self.name))?;
                let listener = BoundListener {
                    listener,
                    path: None,
                };
                Ok((listener, true))
            }
        }
    }
}

/// Opens the socket for front ends.
pub(crate) fn open(socket: &Socket) -> anyhow::Result<Opened> {
    match socket {
        Socket::Path(path) => Ok(Opened {
            name: path.display().to_string(),
            kind: Kind::Listening(bind(path)?),
        }),
        Socket::Inherited(descriptor) => Ok(Opened {
            name: format!("descriptor {descriptor}"),
            kind: inherit(*descriptor)?,
        }),
    }
}

/// Binds `path`, for the user and its group. A socket that nobody listens on any more is replaced.
pub(crate) fn bind(path: &Path) -> anyhow::Result<BoundListener> {
    if let Ok(metadata) = path.symlink_metadata() {
        if !metadata.file_type().is_socket() {
            bail!(
                "{} exists and is not a socket; remove it or choose another path",
                path.display()
            );
        }
        if is_in_use(path) {
            bail!(
                "Another process listens on {}; end it or choose another path",
                path.display()
            );
        }
        std::fs::remove_file(path)
            .with_context(|| format!("Cannot remove the stale socket {}", path.display()))?;
    }
    let before = umask(Mode::XUSR | Mode::XGRP | Mode::RWXO);
    let bound = UnixListener::bind(path);
    umask(before);
    let listener = bound.with_context(|| format!("Cannot listen on {}", path.display()))?;
    Ok(BoundListener {
        listener,
        path: Some(path.to_owned()),
    })
}

/// Whether somebody has the socket at `path` open. A connection of the wrong type is refused in either case, with
/// another error, and the owner does not notice.
fn is_in_use(path: &Path) -> bool {
    UnixDatagram::unbound()
        .and_then(|probe| probe.connect(path))
        .is_err_and(|error| error.raw_os_error() == Some(libc::EPROTOTYPE))
}

fn inherit(descriptor: RawFd) -> anyhow::Result<Kind> {
    // SAFETY: fcntl with F_GETFD takes no pointers and says whether the descriptor is open.
    if unsafe { libc::fcntl(descriptor, libc::F_GETFD) } < 0 {
        bail!("Descriptor {descriptor} of --fd is not open");
    }
    // SAFETY: the descriptor is open, and it was inherited: nothing in this process has opened or owns it.
    let owned = unsafe { OwnedFd::from_raw_fd(descriptor) };
    check_socket(owned.as_fd())
        .with_context(|| format!("Descriptor {descriptor} of --fd is not a Unix stream socket"))?;
    fcntl_setfd(&owned, FdFlags::CLOEXEC)
        .with_context(|| format!("Cannot keep descriptor {descriptor} to this process"))?;
    if sockopt::socket_acceptconn(&owned).unwrap_or(false) {
        return Ok(Kind::Listening(BoundListener {
            listener: UnixListener::from(owned),
            path: None,
        }));
    }
    let stream = UnixStream::from(owned);
    stream
        .set_nonblocking(false)
        .with_context(|| format!("Cannot use descriptor {descriptor} of --fd"))?;
    Ok(Kind::Connected(stream))
}

fn check_socket(descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let right = sockopt::socket_domain(descriptor)? == AddressFamily::UNIX
        && sockopt::socket_type(descriptor)? == SocketType::STREAM;
    if right {
        Ok(())
    } else {
        Err(io::Error::from(io::ErrorKind::InvalidInput))
    }
}
