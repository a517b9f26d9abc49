// SPDX-License-Identifier: GPL-2.0-only

//! The control queue: one request at a time.

use super::{
    answer::is_without_session,
    control::{
        Control,
        Question, //
    },
    state::Link,
    why::Why, //
};
use crate::sys::virtio::request::{
    Idle,
    Returned,
    Submitted,
    Written, //
};
use hmm_protocol::{
    ControlReply,
    Status,
    CONTROL_BYTES, //
};
use kernel::{
    prelude::*,
    sync::MutexGuard,
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
    /// recovery asks, too. The caller holds `recovery`, or is alone with the link.
    ///
    /// # Errors
    ///
    /// `ETIMEDOUT` no answer, `EIO` an answer that makes no sense, `ENODEV` no device.
    pub(super) fn ask(&self, link: &Link, question: Question) -> Result<ControlReply> {
        self.ask_within(link, question, link.timeout)
    }

    /// As [`Control::ask`], with another time-out.
    ///
    /// # Errors
    ///
    /// As [`Control::ask`].
    pub(super) fn ask_within(
        &self,
        link: &Link,
        question: Question,
        timeout: Delta,
    ) -> Result<ControlReply> {
        self.ask_or(
            link,
            question,
            timeout,
            |_| {},
            |submitted, slot| {
                // Queues are stopped without this lock. Who asks meanwhile finds no request, and no device.
                drop(slot);
                // The device must not have it any more before the request can be used again. Batches that come
                // back with it belong to a dead device, and not to one that did not copy them.
                link.shut_down();
                *self.request.lock() = submitted.into_returned();
            },
        )
    }

    /// Asks the device and waits for the reply. A device that does not answer, or has lost the session, is started anew.
    /// Does not allocate.
    ///
    /// # Errors
    ///
    /// As [`Control::ask`].
    pub(super) fn try_ask(&self, link: &Link, question: Question) -> Result<ControlReply> {
        self.try_ask_for(link, question, |_| {})
    }

    /// As [`Control::try_ask`], and hands `read` all that the device wrote if the answer makes sense.
    ///
    /// # Errors
    ///
    /// As [`Control::ask`].
    pub(super) fn try_ask_for(
        &self,
        link: &Link,
        question: Question,
        read: impl FnOnce(Written<'_>),
    ) -> Result<ControlReply> {
        let resets = link.resets();
        let reply = self.ask_or(link, question, link.timeout, read, |submitted, mut slot| {
            link.repair(resets, Why::NoAnswer);
            while !submitted.is_returned() {
                fsleep(PAUSE);
            }
            *slot = submitted.into_returned();
        })?;
        if Status::from_wire(reply.status).is_some_and(is_without_session) {
            link.repair(resets, Why::NoSession);
            return Err(EIO);
        }
        Ok(reply)
    }

    fn ask_or(
        &self,
        link: &Link,
        question: Question,
        timeout: Delta,
        read: impl FnOnce(Written<'_>),
        take_back: impl FnOnce(Submitted, MutexGuard<'_, Option<Idle>>),
    ) -> Result<ControlReply> {
        let queue = link.control_queue()?;
        let mut slot = self.request.lock();
        let mut request = slot.take().ok_or(ENODEV)?;
        let cookie = link.next_cookie();
        let (wire, length) = question.to_wire(cookie);
        request.readable().copy_from_slice(wire.as_bytes());
        let reply_bytes = question.reply_bytes();
        request.clear_written(reply_bytes);

        let submitted = match queue.submit(request, length, reply_bytes) {
            Ok((submitted, _)) => submitted,
            Err((error, request)) => {
                *slot = Some(request);
                return Err(error);
            }
        };
        // An answer needs no copy, so there is no use in polling.
        match queue.wait(submitted, Delta::ZERO, timeout) {
            Returned::Used(request, used) => {
                let reply = understand(&request, used as usize, reply_bytes, cookie);
                match &reply {
                    Ok(reply) if reply.status == Status::Ok.to_wire() => read(request.written()),
                    Ok(_) => {}
                    Err(_) => link.stats.protocol_errors.add(1),
                }
                *slot = Some(request);
                reply
            }
            Returned::Cancelled(request) => {
                *slot = Some(request);
                Err(ENODEV)
            }
            Returned::Pending(submitted) => {
                take_back(submitted, slot);
                Err(ETIMEDOUT)
            }
        }
    }
}

/// The reply in what the device wrote, if it makes sense. A request that was refused is answered without what
/// it asked for.
fn understand(request: &Idle, used: usize, wanted: usize, cookie: u64) -> Result<ControlReply> {
    let reply = request.written().read::<CONTROL_BYTES>().ok_or(EIO)?;
    let reply = ControlReply::read_from_bytes(&reply).map_err(|_| EIO)?;
    let bytes = match reply.status == Status::Ok.to_wire() {
        true => wanted,
        false => CONTROL_BYTES,
    };
    match used == bytes && reply.cookie.get() == cookie {
        true => Ok(reply),
        false => Err(EIO),
    }
}
