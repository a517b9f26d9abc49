// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Unix sockets: bound to a path, or inherited.

use std::{
    fs::Permissions,
    io,
    os::{
        fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::{
            fs::{FileTypeExt, PermissionsExt, lchown},
            net::{UnixDatagram, UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
};

use nix::unistd::Group;
use rustix::{
    fs::Mode,
    io::{FdFlags, fcntl_setfd},
    net::{AddressFamily, SocketType, sockopt},
    process::umask,
};
use thiserror::Error;

use crate::{config::Socket, relay};

/// A listening socket that is removed from the file system when it is dropped.
#[derive(Debug)]
pub(crate) struct BoundListener {
    pub(crate) listener: UnixListener,
    path: Option<PathBuf>,
}

impl BoundListener {
    /// Its path, if it has one that is removed when it is dropped.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Leaves its path alone: another process removes it.
    pub(crate) fn keep_path(&mut self) {
        self.path = None;
    }
}

/// Which users may connect to a socket: the mode and the group of its file.
#[derive(Debug)]
pub(crate) struct Access<'a> {
    /// The permissions of the file.
    pub(crate) mode: u32,
    /// The name or number of its group, if it is not the process's own.
    pub(crate) group: Option<&'a str>,
}

impl Default for Access<'_> {
    /// The user and its group.
    fn default() -> Self {
        Self {
            mode: DEFAULT_MODE,
            group: None,
        }
    }
}

/// Permissions of sockets for which nothing else is asked.
pub(crate) const DEFAULT_MODE: u32 = 0o660;

/// Why a socket cannot be used.
#[derive(Debug, Error)]
pub enum SocketError {
    /// Something else is at the path.
    #[error("{} exists and is not a socket; remove it or choose another path", .0.display())]
    NotASocket(PathBuf),
    /// The socket at the path is another process's.
    #[error("Another process listens on {}; end it or choose another path", .0.display())]
    InUse(PathBuf),
    /// What was left of an earlier process cannot be removed.
    #[error("Cannot remove the stale socket {}: {source}", .path.display())]
    Stale {
        /// Its path.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The path cannot be bound.
    #[error("Cannot listen on {}: {source}", .path.display())]
    Listen {
        /// The path.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// There is no such group.
    #[error("There is no group '{0}'")]
    NoGroup(String),
    /// The file's mode or group cannot be set.
    #[error("Cannot set the mode and the group of {}: {source}", .path.display())]
    Access {
        /// The path.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The descriptor of `--fd` was not inherited.
    #[error("Descriptor {0} of --fd is not open")]
    NotOpen(RawFd),
    /// The descriptor of `--fd` is something else.
    #[error("Descriptor {descriptor} of --fd is not a Unix stream socket: {source}")]
    NotAStream {
        /// The descriptor.
        descriptor: RawFd,
        /// The reason.
        source: io::Error,
    },
    /// The descriptor of `--fd` cannot be set up.
    #[error("Cannot use descriptor {descriptor} of --fd: {source}")]
    Descriptor {
        /// The descriptor.
        descriptor: RawFd,
        /// The reason.
        source: io::Error,
    },
    /// A connected socket cannot be served.
    #[error("Cannot serve {name}: {source}")]
    Relay {
        /// The socket's name.
        name: String,
        /// The reason.
        source: io::Error,
    },
}

impl Drop for BoundListener {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // It may be gone already.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// The socket for front ends, before it is listened on.
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

    /// The listening socket, unless the socket is connected.
    pub(crate) fn listener(&mut self) -> Option<&mut BoundListener> {
        match &mut self.kind {
            Kind::Listening(listener) => Some(listener),
            Kind::Connected(_) => None,
        }
    }

    /// The socket on which front ends come, and whether there is only one to come.
    pub(crate) fn listen(self) -> Result<(BoundListener, bool), SocketError> {
        match self.kind {
            Kind::Listening(listener) => Ok((listener, false)),
            Kind::Connected(stream) => {
                let listener = relay::listen_for(stream).map_err(|source| SocketError::Relay {
                    name: self.name,
                    source,
                })?;
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
pub(crate) fn open(socket: &Socket) -> Result<Opened, SocketError> {
    match socket {
        Socket::Path(path) => Ok(Opened {
            name: path.display().to_string(),
            kind: Kind::Listening(bind(path, &Access::default())?),
        }),
        Socket::Inherited(descriptor) => Ok(Opened {
            name: format!("descriptor {descriptor}"),
            kind: inherit(*descriptor)?,
        }),
    }
}

/// Binds `path`, with that access. A socket that no process listens on any more is replaced.
pub(crate) fn bind(path: &Path, access: &Access<'_>) -> Result<BoundListener, SocketError> {
    let group = access.group.map(find_group).transpose()?;
    if let Ok(metadata) = path.symlink_metadata() {
        if !metadata.file_type().is_socket() {
            return Err(SocketError::NotASocket(path.to_owned()));
        }
        if is_in_use(path) {
            return Err(SocketError::InUse(path.to_owned()));
        }
        match std::fs::remove_file(path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(SocketError::Stale {
                    path: path.to_owned(),
                    source,
                });
            }
            _ => {}
        }
    }
    // At first for the user alone, until the group is the right one.
    let before = umask(Mode::XUSR | Mode::RWXG | Mode::RWXO);
    let bound = UnixListener::bind(path);
    umask(before);
    let bound = BoundListener {
        listener: bound.map_err(|source| SocketError::Listen {
            path: path.to_owned(),
            source,
        })?,
        path: Some(path.to_owned()),
    };
    group
        .map_or(Ok(()), |group| lchown(path, None, Some(group)))
        .and_then(|()| std::fs::set_permissions(path, Permissions::from_mode(access.mode)))
        .map_err(|source| SocketError::Access {
            path: path.to_owned(),
            source,
        })?;
    Ok(bound)
}

/// The number of a group, from its name or its number.
fn find_group(name: &str) -> Result<u32, SocketError> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        _ => Err(SocketError::NoGroup(name.to_owned())),
    }
}

/// Whether a process has the socket at `path` open. A connection of the wrong type is refused in either case, with
/// another error, and the owner does not notice.
fn is_in_use(path: &Path) -> bool {
    UnixDatagram::unbound()
        .and_then(|probe| probe.connect(path))
        .is_err_and(|error| error.raw_os_error() == Some(libc::EPROTOTYPE))
}

fn inherit(descriptor: RawFd) -> Result<Kind, SocketError> {
    // SAFETY: fcntl with F_GETFD takes no pointers and says whether the descriptor is open.
    if unsafe { libc::fcntl(descriptor, libc::F_GETFD) } < 0 {
        return Err(SocketError::NotOpen(descriptor));
    }
    // SAFETY: the descriptor is open, and it was inherited: nothing in this process has opened or owns it.
    let owned = unsafe { OwnedFd::from_raw_fd(descriptor) };
    check_socket(owned.as_fd()).map_err(|source| SocketError::NotAStream { descriptor, source })?;
    let unusable = |source| SocketError::Descriptor { descriptor, source };
    fcntl_setfd(&owned, FdFlags::CLOEXEC).map_err(|error| unusable(error.into()))?;
    if sockopt::socket_acceptconn(&owned).unwrap_or(false) {
        return Ok(Kind::Listening(BoundListener {
            listener: UnixListener::from(owned),
            path: None,
        }));
    }
    let stream = UnixStream::from(owned);
    stream.set_nonblocking(false).map_err(unusable)?;
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
