// SPDX-License-Identifier: GPL-2.0-only

//! The control queue: one request at a time.

use super::{
    control::{
        Control,
        Question, //
    },
    state::Link, //
};
use crate::sys::virtio::request::Returned;
use hmm_protocol::{
    ControlReply,
    CONTROL_BYTES, //
};
use kernel::{
    prelude::*,
    time::Delta, //
};
use zerocopy::{
    FromBytes,
    IntoBytes, //
};

impl Control {
    /// Asks the device and waits for the reply. Does not recover the link: recovery asks, too.
    ///
    /// # Errors
    ///
    /// `ETIMEDOUT` no answer, `EIO` an answer that makes no sense, `ENODEV` no device.
    pub(super) fn ask(&self, link: &Link, question: Question) -> Result<ControlReply> {
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
                // The device must not have it any more before the request can be used again.
                link.queues.stop();
                *slot = submitted.into_returned();
                Err(ETIMEDOUT)
            }
        }
    }
}
