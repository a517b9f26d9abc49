// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What cases are made of.

pub(in crate::cases) mod bounce_buffers;
pub(in crate::cases) mod cgroup;
pub(in crate::cases) mod depth;
pub(in crate::cases) mod driver;
pub(in crate::cases) mod failing;
pub(in crate::cases) mod failing_driver;
pub(in crate::cases) mod gate;
pub(in crate::cases) mod host;
pub(in crate::cases) mod inject;
pub(in crate::cases) mod intx;
pub(in crate::cases) mod ioctl;
pub(in crate::cases) mod jobs;
pub(in crate::cases) mod kernel;
pub(in crate::cases) mod memory;
pub(in crate::cases) mod mirror;
pub(in crate::cases) mod modelled;
pub(in crate::cases) mod moves;
pub(in crate::cases) mod nodes;
pub(in crate::cases) mod pattern;
pub(in crate::cases) mod pinned;
pub(in crate::cases) mod proc_self;
pub(in crate::cases) mod process;
pub(in crate::cases) mod program;
pub(in crate::cases) mod ptrace;
pub(in crate::cases) mod random;
pub(in crate::cases) mod setting;
pub(in crate::cases) mod signals;
pub(in crate::cases) mod storm;
pub(in crate::cases) mod swap;
pub(in crate::cases) mod symbols;
pub(in crate::cases) mod tracefs;
pub(in crate::cases) mod userfaultfd;

/// What nearly every case needs.
pub(in crate::cases) mod prelude {
    pub(in crate::cases) use super::memory::{HUGE, Memory, PAGE};
    pub(in crate::cases) use super::moves::{Mover, none};
    pub(in crate::cases) use super::process::{Child, fork};
    pub(in crate::cases) use crate::cases::case::{Case, skip};
    pub(in crate::cases) use anyhow::{Context, Result, bail, ensure};
    pub(in crate::cases) use hmm_uapi::client::Process;
    pub(in crate::cases) use hmm_uapi::{Direction, MigrateFlags, SkipReason};
}
