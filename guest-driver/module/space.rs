// SPDX-License-Identifier: GPL-2.0-only

//! A process's address space as the device sees it: page tables on the device that follow those of the
//! process, device faults, exclusive access, jobs.
//!
//! A [`Space`] has a context on the device. What the device may access is what [`Table`](table) says; every
//! change of the process's page tables takes the range away from it, under the update lock, and only a
//! device fault or a call maps anything again. So a page that is copied, freed or write-protected
//! is never accessed by a job at the same time.
//!
//! A reset of the device ends its contexts, and with them everything that is mapped. A table that was
//! filled before the last reset counts as empty.
//!
//! # Lock order
//!
//! `View::exclusive` > mmap lock > lock of a page > `View::table` (the update lock) > `Link::contexts`,
//! requests of the link. Nothing allocates with the update lock, or waits for the recovery of the link.

mod access;
mod exclusive;
mod fault;
mod handle;
mod invalidate;
mod policy;
mod populate;
mod run;
mod table;
mod threads;
mod view;
mod window;

pub(crate) use self::{
    handle::Space,
    run::JobSpec,
    threads::ContextThreads,
    window::Window, //
};
