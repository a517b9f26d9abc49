// SPDX-License-Identifier: GPL-2.0-only

//! One virtio device: its queues, its session, the batches that it executes, and what happens
//! when it does not answer.
//!
//! The link knows extents of device memory and DMA addresses, and nothing of pages.
//!
//! # Time-outs
//!
//! Every wait is bounded. If a request is not answered in time the link resets the device, which
//! then accesses no memory any more, starts it anew and adopts the contents of its memory. If the
//! contents are still there nothing is lost. Otherwise, or if the device still does not answer, the
//! link is dead, and stays so: the device is lost, until another link adopts its contents (`docs/loss.md`). The same
//! happens when the device answers that it has no session, or another one.
//!
//! # Contexts
//!
//! What changes the page tables of a context runs where memory is reclaimed, so it must neither allocate
//! nor wait for the recovery, which does. A request about contexts that fails leaves it to a thread of
//! its own to start the device anew ([`Link::repair`]), and waits only until the device is reset: with that
//! all contexts have ended.
//!
//! # Lock order
//!
//! `Link::recovery` > `Virtqueues::life` > a queue's ring. The batch path takes only the latter,
//! unless the device has failed. `Link::contexts` > `Repairs::wanted`, a queue's ring.

mod access_bits;
mod answer;
mod ask;
mod batch;
mod config;
mod contexts;
mod control;
mod event_log;
mod events;
mod in_flight;
mod jobs;
mod map_batch;
mod mmu;
mod no_access;
mod recovery;
mod repair;
mod repairs;
mod reports;
mod request_pool;
mod state;
mod why;

pub(crate) use self::{
    batch::Batch,
    config::{
        uuid_of,
        Shape,
        FEATURES,
        UNWANTED_FEATURES, //
    },
    in_flight::InFlight,
    jobs::Submission,
    map_batch::{
        MapBatch,
        Mapped, //
    },
    no_access::NoAccess,
    reports::{
        Reports,
        Told, //
    },
    state::{
        Adoption,
        Lane,
        Link,
        BATCH_ENTRIES,
        BULK_BATCHES, //
    }, //
};
