// SPDX-License-Identifier: GPL-2.0-only

//! `/dev/hmm_dmirror0` and `/dev/hmm_dmirror1`: the interface of the kernel's own test driver of HMM
//! (`lib/test_hmm.c`), so that its test program runs on a real device. `hmm_uapi::dmirror` describes it.
//!
//! The nodes exist only with the module parameter `dmirror=1`. An open file mirrors the address space that
//! opened it, also when another process makes the calls.

mod access;
mod command;
mod migrate;
mod mirror_file;
mod node;
mod pages;
mod snapshot;

pub(crate) use self::node::Dmirror;
