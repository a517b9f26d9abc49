// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The virtio-serial ports, by name.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How long the kernel may take to find them: it does so beside the start of init.
const LIMIT: Duration = Duration::from_secs(30);

/// Opens a port for reading and writing. A port can be opened once only; further handles are clones.
pub(crate) fn open(name: &str) -> Result<File> {
    let end = Instant::now() + LIMIT;
    let node = loop {
        match find(Path::new("/sys/class/virtio-ports"), name) {
            Ok(Some(node)) => break node,
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).context("cannot look for virtio-serial ports"),
        }
        if Instant::now() > end {
            bail!("the machine has no virtio-serial port {name}");
        }
        thread::sleep(Duration::from_millis(5));
    };
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(&node)
        .with_context(|| format!("cannot open {} ({name})", node.display()))
}

fn find(class: &Path, name: &str) -> io::Result<Option<PathBuf>> {
    for port in fs::read_dir(class)? {
        let port = port?;
        // The name arrives after the port.
        let Ok(own) = fs::read_to_string(port.path().join("name")) else {
            continue;
        };
        if own.trim_end() == name {
            return Ok(Some(Path::new("/dev").join(port.file_name())));
        }
    }
    Ok(None)
}
