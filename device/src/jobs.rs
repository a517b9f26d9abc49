// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Jobs: what the device does at the virtual addresses of a context.
//!
//! - [`Jobs`]: all jobs of a session, as executors and workers share them.
//! - [`Work`]: what a job does, as a state machine that is interrupted at will and goes on after a page fault. There is one
//!   for each kind of job, and [`Access`] is all that it sees of memory.
//! - [`Buffers`]: where reports of page faults and of ends go. None is lost; they wait for buffers in the table of jobs, which
//!   is bounded by the number of jobs.
//!
//! The threads that execute jobs are in [`executor`](crate::executor).

mod access;
mod atomic_add;
mod copy;
mod counts;
mod crc32c;
mod fill;
#[cfg(test)]
mod model;
mod parts;
mod probe;
mod program;
mod report;
mod scheduler;
mod table;
mod walk;
mod work;

pub use self::{
    access::Access,
    counts::JobsSnapshot,
    scheduler::{Buffers, Jobs, Next},
    table::{Answer, Bounds, Turn, TurnEnd},
    work::{End, Step, Work},
};
