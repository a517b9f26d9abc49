// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A lock that dies with its holder.

use std::fs::{File, OpenOptions};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::{Result, SetupError};

/// An exclusive lock on a file, held until it is dropped or the process ends.
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock. `waiting` is called once if another process holds it.
    pub(crate) fn take(path: &Path, waiting: impl FnOnce()) -> Result<Self> {
        let file = open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Self { _file: file }),
            Err(Errno::WOULDBLOCK) => waiting(),
            Err(error) => return Err(SetupError::io("lock", path)(error.into())),
        }
        loop {
            match flock(&file, FlockOperation::LockExclusive) {
                Ok(()) => return Ok(Self { _file: file }),
                Err(Errno::INTR) => {}
                Err(error) => return Err(SetupError::io("lock", path)(error.into())),
            }
        }
    }

    /// Takes the lock if it is free.
    pub(crate) fn try_take(path: &Path) -> Result<Option<Self>> {
        let file = open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(SetupError::io("lock", path)(error.into())),
        }
    }
}

fn open(path: &Path) -> Result<File> {
    (OpenOptions::new().create(true).append(true).open(path)).map_err(SetupError::io("open", path))
}
