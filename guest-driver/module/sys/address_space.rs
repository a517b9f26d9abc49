// SPDX-License-Identifier: GPL-2.0-only

//! Address spaces: mappings, the mmap lock, MMU notifiers, reverse mappings.

pub(crate) mod anon_vma;
pub(crate) mod exclusive;
mod hmm_entries;
mod interval;
pub(crate) mod locked;
pub(crate) mod mirror;
pub(crate) mod mm;
pub(crate) mod mmap_lock;
pub(crate) mod owner_rules;
pub(crate) mod page_mapping;
pub(crate) mod process;
pub(crate) mod snapshot;
pub(crate) mod tracking;
pub(crate) mod watch;
pub(crate) mod zap_guard;
