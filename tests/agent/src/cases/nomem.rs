// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `nomem/*`: every allocation that an operation makes fails in turn. The operation gives a clear error or does without,
//! no byte is lost, and the next try works.

mod binding;
mod calls;
mod faults;
mod mirrors;
mod moves;
mod workers;

use super::case::Case;
use anyhow::{Result, bail};
use hmm_uapi::client::Error;
use rustix::io::Errno;

/// All cases of the group.
pub(super) fn cases() -> impl Iterator<Item = &'static Case> {
    (calls::CASES.iter())
        .chain(moves::CASES)
        .chain(faults::CASES)
        .chain(workers::CASES)
        .chain(mirrors::CASES)
        .chain(binding::CASES)
}

/// Checks that an operation was done or that there was no memory for it. A copy from or to the caller's memory may fail
/// in place of an allocation.
fn done_or_no_memory<T>(result: Result<T, Errno>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NOMEM | Errno::FAULT) => Ok(None),
        Err(errno) => bail!("expected success, ENOMEM or EFAULT, found {errno:?}"),
    }
}

/// The kernel's answer to a call of the client.
fn errno_of(error: Error) -> Result<Errno> {
    match error {
        Error::Open { errno, .. } | Error::NotHmm { errno, .. } | Error::Call { errno, .. } => {
            Ok(errno)
        }
        other => Err(other.into()),
    }
}

/// The same of a call of the client.
fn call_done_or_no_memory<T>(result: Result<T, Error>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) => done_or_no_memory(Err(errno_of(error)?)),
    }
}
