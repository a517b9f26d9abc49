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
//! link is dead, and stays so.
//!
//! # Lock order
//!
//! `Link::recovery` > `Virtqueues::life` > a queue's ring. The batch path takes only the latter,
//! unless the device has failed.

mod answer;
mod ask;
mod batch;
mod config;
mod control;
mod event_log;
mod events;
mod in_flight;
mod recovery;
mod request_pool;
mod state;

pub(crate) use self::{
    batch::Batch,
    config::{
        FEATURES,
        UNWANTED_FEATURES, //
    },
    in_flight::InFlight,
    state::{
        Lane,
        Link,
        BATCH_ENTRIES,
        BULK_BATCHES, //
    }, //
};
