// SPDX-License-Identifier: GPL-2.0-only

//! The buffers of the report queue, which one thread has.

use super::state::Link;
use crate::sys::virtio::request::{
    Idle,
    Returned,
    Submitted, //
};
use hmm_protocol::{
    Report,
    REPORT_BYTES, //
};
use kernel::{
    prelude::*,
    time::{
        delay::fsleep,
        Delta, //
    }, //
};
use zerocopy::FromBytes;

/// Buffers that the device may fill before the driver looks.
const BUFFERS: usize = 64;
/// How long to poll for a report after another one before sleeping.
const POLL: Delta = Delta::from_micros(50);
/// How long to wait before buffers are posted again that were refused.
const PAUSE: Delta = Delta::from_millis(1);
/// A device that does not fill the buffers in order is noticed after so long.
const LOOK: Delta = Delta::from_millis(1000);

/// The buffers of the report queue. The device fills them in the order in which they were posted.
pub(crate) struct Reports {
    idle: KVec<Idle>,
    posted: KVec<Submitted>,
    /// Whether the last call returned a report.
    is_busy: bool,
}

/// What the report queue tells.
pub(crate) enum Told {
    /// A report; nothing in it is checked.
    Report(Report),
    /// Nothing for now, or the device was reset.
    Nothing,
    /// Nothing for a second.
    Quiet,
    /// The device is gone for good.
    Ended,
}

impl Reports {
    /// Prepares the buffers.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        let mut idle = KVec::with_capacity(BUFFERS, GFP_KERNEL)?;
        for _ in 0..BUFFERS {
            idle.push(Idle::new(0, REPORT_BYTES)?, GFP_KERNEL)?;
        }
        Ok(Self {
            idle,
            posted: KVec::with_capacity(BUFFERS, GFP_KERNEL)?,
            is_busy: false,
        })
    }

    /// Gives the device all buffers that it does not have, as far as they fit.
    fn post(&mut self, link: &Link) -> Result {
        let queue = link.report_queue()?;
        let before = self.posted.len();
        while let Some(mut request) = self.idle.pop() {
            request.clear_written(REPORT_BYTES);
            match queue.submit(request, 0, REPORT_BYTES) {
                Ok((submitted, _)) => {
                    // The vector has room for all buffers.
                    let _ = self.posted.push_within_capacity(submitted);
                }
                Err((error, request)) => {
                    let _ = self.idle.push_within_capacity(request);
                    if self.posted.len() == before && before == 0 {
                        return Err(error);
                    }
                    break;
                }
            }
        }
        Ok(())
    }

    /// Waits for the next report, or until something else is to be looked at.
    pub(crate) fn next(&mut self, link: &Link) -> Told {
        if link.ready().is_err() {
            return Told::Ended;
        }
        let epoch = link.epoch();
        if let Err(error) = self.post(link) {
            if error == EIO {
                link.queue_broken(epoch);
            }
            fsleep(PAUSE);
            return Told::Nothing;
        }
        let Ok(queue) = link.report_queue() else {
            return Told::Ended;
        };
        let first = self.posted.iter().position(Submitted::is_returned);
        // The vector is short.
        let Ok(submitted) = self.posted.remove(first.unwrap_or(0)) else {
            return Told::Nothing;
        };
        let poll = if self.is_busy { POLL } else { Delta::ZERO };
        self.is_busy = false;
        match queue.wait_idly(submitted, poll, LOOK) {
            Returned::Used(request, used) => {
                let bytes = request.written().read::<REPORT_BYTES>();
                let _ = self.idle.push_within_capacity(request);
                let report = bytes.and_then(|bytes| Report::read_from_bytes(&bytes).ok());
                match report.filter(|_| used as usize == REPORT_BYTES) {
                    Some(report) => {
                        self.is_busy = true;
                        Told::Report(report)
                    }
                    None => {
                        link.stats().protocol_errors.add(1);
                        Told::Nothing
                    }
                }
            }
            Returned::Cancelled(request) => {
                let _ = self.idle.push_within_capacity(request);
                Told::Nothing
            }
            Returned::Pending(submitted) => {
                let _ = self.posted.insert_within_capacity(0, submitted);
                Told::Quiet
            }
        }
    }
}
