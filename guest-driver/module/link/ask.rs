// SPDX-License-Identifier: GPL-2.0-only

//! The control queue: one request at a time.

use super::{
    control::{
        Control,
        Question, //
    },
    state::Link, //
};
use crate::sys::virtio::request::{
    Idle,
    Returned,
    Submitted, //
};
use hmm_protocol::{
    ControlReply,
    CONTROL_BYTES, //
};
use kernel::{
    prelude::*,
    time::{
        delay::fsleep,
        Delta, //
    }, //
};
use zerocopy::{
    FromBytes,
    IntoBytes, //
};

/// How often a task looks whether a request has come back.
const PAUSE: Delta = Delta::from_micros(100);

impl Control {
    /// Asks the device and waits for the reply. A device that does not answer is stopped for good, since
    /// recovery asks, too.
    ///
    /// # Errors
    ///
    /// `ETIMEDOUT` no answer, `EIO` an answer that makes no sense, `ENODEV` no device.
    pub(super) fn ask(&self, link: &Link, question: Question) -> Result<ControlReply> {
        self.ask_or(link, question, |submitted| {
            // The device must not have it any more before the request can be used again.
            link.queues.stop();
            submitted.into_returned()
        })
    }

    /// Asks the device and waits for the reply. A device that does not answer is started anew. Does not
    /// allocate.
    ///
    /// # Errors
    ///
    /// As [`Control::ask`].
    pub(super) fn try_ask(&self, link: &Link, question: Question) -> Result<ControlReply> {
        let resets = link.resets();
        self.ask_or(link, question, |submitted| {
            link.repair(resets);
            while !submitted.is_returned() {
                fsleep(PAUSE);
            }
            submitted.into_returned()
        })
    }

    fn ask_or(
        &self,
        link: &Link,
        question: Question,
        take_back: impl FnOnce(Submitted) -> Option<Idle>,
    ) -> Result<ControlReply> {
        let queue = link.control_queue()?;
        let mut slot = self.request.lock();
        let mut request = slot.take().ok_or(ENODEV)?;
        let cookie = link.next_cookie();
        let (wire, length) = question.to_wire(cookie);
        request.readable().copy_from_slice(wire.as_bytes());
        request.clear_written(CONTROL_BYTES);

        let submitted = match queue.submit(request, length, CONTROL_BYTES) {
            Ok((submitted, _)) => submitted,
            Err((error, request)) => {
                *slot = Some(request);
                return Err(error);
            }
        };
        // An answer needs no copy, so there is no use in polling.
        match queue.wait(submitted, Delta::ZERO, link.timeout) {
            Returned::Used(request, used) => {
                let reply = request.written().read::<CONTROL_BYTES>().ok_or(EIO);
                *slot = Some(request);
                let reply = ControlReply::read_from_bytes(&reply?).map_err(|_| EIO)?;
                if used as usize != CONTROL_BYTES || reply.cookie.get() != cookie {
                    link.stats.protocol_errors.add(1);
                    return Err(EIO);
                }
                Ok(reply)
            }
            Returned::Cancelled(request) => {
                *slot = Some(request);
                Err(ENODEV)
            }
            Returned::Pending(submitted) => {
                *slot = take_back(submitted);
                Err(ETIMEDOUT)
            }
        }
    }
}
