// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The cases that run in the guest, and what runs them.
//!
//! Each case runs in a process of its own, which is this program executed again: it finds fresh memory, and it may
//! crash or hang without harm to the others. Results are written as KTAP while they come in.

mod access;
mod account;
mod background;
mod bench;
mod bounce;
mod case;
mod child;
mod control;
mod delay;
mod dmirror;
mod ends;
mod errors;
mod evict;
mod exit;
mod fault;
mod fork;
mod fuzz;
mod hibernate;
mod hmmctl;
mod huge;
mod hygiene;
mod job;
mod ktap;
mod kunit;
mod leaks;
mod load;
mod loss;
mod migrate;
mod nomem;
mod policy;
mod recorder;
mod runner;
mod selftest;
mod space;
mod stopwatch;
mod storm;
mod stress;
mod support;
mod trace;
mod tracking;
mod unload;
mod unmap;
mod workload;

pub(crate) use child::dispatch;
pub(crate) use runner::run;

use case::Case;

/// Every case, in the order in which they run.
fn all() -> impl Iterator<Item = &'static Case> {
    (kunit::CASES.iter())
        .chain(migrate::cases())
        .chain(fault::cases())
        .chain(fork::CASES)
        .chain(huge::CASES)
        .chain(unmap::CASES)
        .chain(evict::CASES)
        .chain(exit::CASES)
        .chain(access::cases())
        .chain(account::CASES)
        .chain(background::CASES)
        .chain(hibernate::CASES)
        .chain(hmmctl::CASES)
        .chain(delay::CASES)
        .chain(errors::cases())
        .chain(loss::cases())
        .chain(policy::cases())
        .chain(dmirror::cases())
        .chain(job::cases())
        .chain(trace::CASES)
        .chain(tracking::CASES)
        .chain(nomem::cases())
        .chain(unload::cases())
        .chain(space::cases())
        .chain(storm::CASES)
        .chain(stress::CASES)
        .chain(fuzz::CASES)
        .chain(load::CASES)
}
