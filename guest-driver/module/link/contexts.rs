// SPDX-License-Identifier: GPL-2.0-only

//! Asks the device about contexts. Nothing here allocates, so it may be called where memory is reclaimed.

use super::{
    control::Question,
    state::Link,
    why::Why, //
};
use hmm_protocol::Status;
use kernel::prelude::*;

/// The number of no job.
const NO_JOB: u64 = 0;

impl Link {
    /// Creates a context, which exists until the device is reset. Returns the number of resets until which
    /// that is so.
    ///
    /// # Errors
    ///
    /// `EIO` the device refuses or was reset meanwhile, `ENODEV` there is none.
    pub(crate) fn create_context(&self, context: u32) -> Result<u32> {
        let resets = self.resets();
        match self.ask_about(Question::CreateContext(context), resets)? {
            Status::Ok => Ok(resets),
            // The device created it for an earlier request, whose answer was lost.
            Status::BadContext => {
                self.ask_about(Question::DestroyContext(context), resets)?;
                match self.ask_about(Question::CreateContext(context), resets)? {
                    Status::Ok => Ok(resets),
                    _ => Err(EIO),
                }
            }
            _ => Err(EIO),
        }
    }

    /// Has the device destroy a context. Returns whether it has, or was reset since the context was created, when it had
    /// been reset `resets` times.
    pub(super) fn has_destroyed(&self, context: u32, resets: u32) -> bool {
        if self.resets() != resets {
            return true;
        }
        let status = self.ask_about(Question::DestroyContext(context), resets);
        status == Ok(Status::Ok) || self.resets() != resets
    }

    /// Asks the device to end a job. Returns whether it knows the job.
    ///
    /// # Errors
    ///
    /// `EIO` the device was reset meanwhile, `ENODEV` there is none.
    pub(crate) fn cancel_job(&self, cookie: u64) -> Result<bool> {
        let resets = self.resets();
        let status = self.ask_about(Question::CancelJob(cookie), resets)?;
        Ok(status == Status::Ok)
    }

    /// Asks what only a device with the session answers. One that has lost it, or does not answer, is started anew, which ends
    /// its jobs: while they run, nothing else may be asked.
    pub(crate) fn expect_session(&self) {
        // Nobody waits for this answer.
        let _ = self.ask_about(Question::CancelJob(NO_JOB), self.resets());
    }

    /// Asks, and has the device reset if it does not answer.
    fn ask_about(&self, question: Question, resets: u32) -> Result<Status> {
        match self.contexts.try_ask(self, question) {
            Ok(reply) => Status::from_wire(reply.status).ok_or(EIO),
            Err(error) if error == ENODEV => Err(ENODEV),
            Err(_) => {
                if self.resets() == resets {
                    self.repair(resets, Why::NoAnswer);
                }
                Err(EIO)
            }
        }
    }
}
