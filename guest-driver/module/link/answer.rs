// SPDX-License-Identifier: GPL-2.0-only

//! What the device answers to a batch, of which nothing is believed unchecked.

use crate::sys::virtio::request::Written;
use hmm_protocol::{
    status_array_bytes,
    Completion,
    Status,
    COMPLETION_BYTES, //
};
use zerocopy::FromBytes;

/// What the device says of a batch as a whole.
#[derive(Clone, Copy)]
pub(super) struct Answer {
    /// Whether every entry was executed.
    pub(super) all_ok: bool,
    pub(super) entries_ok: u32,
    /// Bytes copied, and the time that the device took, ns, as it says.
    pub(super) pace: (u64, u32),
    /// Whether the device does not have the session of the batch, of which it executed nothing.
    pub(super) without_session: bool,
}

/// Whether a request was refused since the device has no session, or another one. Its contents may still be there.
pub(super) fn is_without_session(status: Status) -> bool {
    matches!(status, Status::NoSession | Status::StaleGeneration)
}

/// Checks an answer as far as it concerns the whole batch.
pub(super) fn check(
    written: Written<'_>,
    used: u32,
    cookie: u64,
    entries: usize,
) -> core::result::Result<Answer, &'static str> {
    let record: [u8; COMPLETION_BYTES] = written.read().ok_or("short buffer")?;
    let record = Completion::read_from_bytes(&record).map_err(|_| "short buffer")?;
    let status = Status::from_wire(record.status).ok_or("unknown status")?;
    if record.cookie.get() != cookie {
        return Err("another batch's cookie");
    }
    if record.entries_ok.get() as usize > entries {
        return Err("more entries executed than there are");
    }
    // CAST: The number of entries was checked when the batch was written.
    let full = COMPLETION_BYTES + status_array_bytes(entries as u32);
    match used as usize {
        used if used == full => {}
        // A batch that is refused as a whole has no statuses of entries.
        COMPLETION_BYTES if status != Status::Ok && record.entries_ok.get() == 0 => {}
        _ => return Err("wrong length"),
    }
    let all_ok = match status {
        Status::Ok if record.entries_ok.get() as usize == entries => true,
        Status::Ok => return Err("success, and entries that were not executed"),
        Status::NotAttempted => return Err("no status"),
        _ => false,
    };
    Ok(Answer {
        all_ok,
        entries_ok: record.entries_ok.get(),
        pace: (record.bytes_done.get(), record.device_ns.get()),
        without_session: is_without_session(status) && used as usize == COMPLETION_BYTES,
    })
}
