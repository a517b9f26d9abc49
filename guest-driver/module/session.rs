// SPDX-License-Identifier: GPL-2.0-only

//! The ioctls of `/dev/hmmN`. `hmm_uapi` describes them.

mod argument;
mod call;
mod fdinfo;
mod info;
mod ioctl;
mod job;
mod jobs;
mod migrate;
mod policy;
mod prefetch;
mod residency;
mod state;

pub(crate) use self::state::Session;
