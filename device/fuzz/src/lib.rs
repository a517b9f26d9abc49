// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Fuzz targets: functions from bytes to nothing, or to a panic.
//!
//! - [`decoder`]: the bytes are a request. The engine answers, and touches nothing outside.
//! - [`rings`]: the bytes make rings, chains and memory. What the device does is compared with a model.
//! - [`queues`]: the bytes make use of the three queues that one worker serves.
//! - [`translations`]: the bytes are changes of page tables. What jobs see is compared with a plain map.
//! - [`jobs`]: the bytes make jobs, page tables and answers to page faults. A model knows what must come of them.
//! - [`messages`]: the bytes are what a front end sends.
//! - [`programs`]: the bytes are code. Misses change nothing of what it does.
//!
//! Inputs worth keeping are in `seeds/`; the tests replay them, and `hmm-fuzz TARGET` looks for more.

pub mod decoder;
mod fixture;
pub mod jobs;
pub mod messages;
mod model;
pub mod programs;
pub mod queues;
pub mod rings;
mod steps;
pub mod translations;

/// A target by its name.
pub fn target(name: &str) -> Option<fn(&[u8])> {
    match name {
        "decoder" => Some(decoder::run),
        "rings" => Some(rings::run),
        "queues" => Some(queues::run),
        "jobs" => Some(jobs::run),
        "messages" => Some(messages::run),
        "programs" => Some(programs::run),
        "translations" => Some(translations::run),
        _ => None,
    }
}

/// The names of all targets.
pub const TARGETS: [&str; 7] = [
    "decoder",
    "rings",
    "queues",
    "jobs",
    "messages",
    "programs",
    "translations",
];

/// The inputs in a folder, in the order of their names; none if it cannot be read.
pub fn read_seeds(folder: &std::path::Path) -> Vec<Vec<u8>> {
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    paths.sort();
    paths
        .iter()
        .filter_map(|path| std::fs::read(path).ok())
        .collect()
}
