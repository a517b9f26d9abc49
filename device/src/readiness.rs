// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Tells the service manager that the device is ready, by systemd's protocol.
//!
//! The socket is connected before the sandbox closes paths and takes `socket()` and `connect()` away, and the message is
//! sent when the sandbox is complete. Crates for the protocol connect for each message, and so would need both for good.

use std::{
    env, io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
};

/// The connection to the service manager, if one waits.
#[derive(Debug)]
pub(crate) struct Readiness {
    manager: Option<UnixDatagram>,
}

impl Readiness {
    /// Connects to the socket that `NOTIFY_SOCKET` names: a path, or behind `@` a name without a file.
    pub(crate) fn connect() -> io::Result<Self> {
        let Some(name) = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Ok(Self { manager: None });
        };
        let address = match name.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(&name)?,
        };
        let manager = UnixDatagram::unbound()?;
        manager.connect_addr(&address)?;
        Ok(Self {
            manager: Some(manager),
        })
    }

    /// Says that the device is ready.
    pub(crate) fn tell(self) -> io::Result<()> {
        match self.manager {
            Some(manager) => manager.send(b"READY=1\n").map(drop),
            None => Ok(()),
        }
    }
}
