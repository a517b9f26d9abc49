// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vhost-user-hmm`: a vhost-user back end with private memory and a DMA engine.
//!
//! From the outside in:
//! - [`config`]: the command line, checked.
//! - [`daemon`]: the process: sockets, signals, one front end at a time.
//! - [`backend`]: what vhost-user asks for, in terms of [`device`].
//! - [`device`]: the virtio device: queues, events, the configuration space.
//! - [`queue`]: from a ring to a batch and back.
//! - [`engine`]: executes batches. It knows [`mmu`], [`jobs`], [`memory`], [`guest_memory`], [`model`], the wire format and [`inject`], and neither
//!   vhost nor rings, so that a second front end is possible.
//! - [`jobs`]: what the device does at the virtual addresses of a process. [`mmu`]: contexts with page tables for them.
//! - [`control`]: the control socket. [`stats`]: what is counted. [`trace`]: what happened when.
//!   [`sandbox`]: what the process gives up.
//!
//! No file imports a file that imports it: `cargo xtask check` refuses it. What several modules share is at the bottom: [`end`], [`events`],
//! [`layout`], [`threads`].

pub mod backend;
pub mod config;
pub mod connection;
mod continuation;
pub mod control;
pub mod daemon;
pub mod device;
pub mod end;
pub mod engine;
pub mod events;
pub mod executor;
pub mod guest_memory;
pub mod inject;
pub mod jobs;
pub mod layout;
pub mod logging;
pub mod memory;
pub mod mmu;
pub mod model;
pub mod queue;
mod readiness;
pub mod relay;
pub mod ring;
pub mod sandbox;
pub mod size;
pub mod socket;
pub mod stats;
pub mod threads;
pub mod trace;
