// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Putting a device into a running QEMU.

use std::io;
use std::os::fd::BorrowedFd;
use std::thread;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::guest::qmp::Qmp;

/// How often QEMU is asked to let a connection go that its device has just left.
const RELEASE_TRIES: u32 = 50;
const RELEASE_PAUSE: Duration = Duration::from_millis(20);

/// Plugs a device in whose process is at the other end of `socket`. QEMU knows the connection as `connection`, and the
/// descriptor, until then, as `descriptor`.
pub(in crate::guest) fn plug_in(
    qmp: &mut Qmp,
    connection: &str,
    descriptor: &str,
    socket: BorrowedFd<'_>,
    arguments: Map<String, Value>,
) -> io::Result<()> {
    qmp.hand_over(descriptor, socket)?;
    let backend = json!({
        "type": "socket",
        "data": { "addr": { "type": "fd", "data": { "str": descriptor } }, "server": false },
    });
    qmp.execute(
        "chardev-add",
        json!({ "id": connection, "backend": backend }),
    )?;
    qmp.execute("device_add", Value::Object(arguments))
        .map(drop)
}

/// Has QEMU close its end of a connection. It is not free at once when the device that used it has gone.
pub(in crate::guest) fn release(qmp: &mut Qmp, connection: &str) -> io::Result<()> {
    let mut tries = 0;
    loop {
        match qmp.execute("chardev-remove", json!({ "id": connection })) {
            Ok(_) => return Ok(()),
            // A start that failed before has removed it.
            Err(error) if error.to_string().contains("not found") => return Ok(()),
            Err(error) if is_refusal(&error) && tries < RELEASE_TRIES => {
                tries += 1;
                thread::sleep(RELEASE_PAUSE);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Whether QEMU answered, and refused.
pub(in crate::guest) fn is_refusal(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Other
}

/// Whether the connection to QEMU has ended.
pub(in crate::guest) fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}
