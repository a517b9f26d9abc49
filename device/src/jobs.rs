// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Jobs: what the device does at the virtual addresses of a context.

use hmm_protocol::Status;

/// The answer to a page fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The job tries its access again.
    Resume,
    /// The job ends with this status.
    Fail(Status),
}

/// All jobs of a device.
#[derive(Debug, Default)]
pub struct Jobs {}

impl Jobs {
    /// Answers page fault `fault` of a job of context `context`.
    ///
    /// # Errors
    /// `BadFault`: no such fault waits for an answer.
    pub fn answer(&self, _context: u32, _fault: u64, _answer: Answer) -> Result<(), Status> {
        Err(Status::BadFault)
    }

    /// Cancels the job with this cookie.
    ///
    /// # Errors
    /// `BadOp`: there is no such job.
    pub fn cancel(&self, _cookie: u64) -> Result<(), Status> {
        Err(Status::BadOp)
    }

    /// Ends all jobs of context `context`, which was destroyed.
    pub fn end_context(&self, _context: u32) {}

    /// Ends all jobs: the session is over.
    pub fn end_all(&self) {}
}
