// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The device's MMU: contexts with page tables, through which jobs access memory at the virtual addresses of a process.
//!
//! - [`Contexts`]: all contexts of a session, by their number.
//! - [`Context`]: the page tables of one, and the gate that changes of them and accesses go through.
//! - [`Section`]: a short stretch of a job in which translations stay as they are. An access happens only in a section, and
//!   a change that takes something away waits until all sections of the context have ended. That is the whole protocol of
//!   invalidation; `device/gate/tests/models.rs` runs through its interleavings.
//! - [`AccessBits`]: which blocks of device memory jobs accessed and wrote.
//!
//! Lock order: the device's gate (which holds the guest's memory table), the session, the table of contexts, a context's gate.
//! A thread holds no two contexts' gates, and inside a section it waits for nothing.

mod access;
mod budget;
mod change;
mod context;
mod contexts;
mod entry;
mod section;
mod table;
mod usage;

pub use self::{
    access::AccessBits,
    budget::Budget,
    change::{Change, Edit, Progress},
    context::Context,
    contexts::Contexts,
    section::{Look, Memories, Miss, MissReason, Section},
    usage::ContextsSnapshot,
};
