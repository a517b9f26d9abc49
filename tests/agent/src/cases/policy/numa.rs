// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What binds a process to a NUMA node says where its pages go, whichever task brings them back to system memory.

use super::super::case::skip;
use super::super::support::cgroup::Cpuset;
use super::super::support::gate::Gate;
use super::super::support::jobs::Jobs;
use super::super::support::prelude::*;
use super::super::support::ptrace;
use super::super::unload::with_unbound;
use super::{PAGES, filled};
use hmm_uapi::client::JobRequest;
use std::ptr::null;

/// The node that the process is bound to. Pages that come from elsewhere are on the first.
const NODE: i32 = 1;

/// What binds the process.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// Its own policy: `set_mempolicy()`.
    Task,
    /// That of the mapping: `mbind()`.
    Mapping,
    /// Its cgroup.
    Cpuset,
}

/// What brings its pages back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    OwnCall,
    OthersCall,
    /// A call by a process that is bound to another node.
    OthersBoundCall,
    Evicted,
    Unbound,
    Read,
    /// Another process reads them.
    OthersRead,
}

pub(super) const CASES: &[Case] = &[
    Case::new("policy/numa-own-call-anon-4k", || {
        single(Rule::Task, Way::OwnCall)
    }),
    Case::new("policy/numa-others-call-anon-4k", || {
        single(Rule::Task, Way::OthersCall)
    }),
    Case::new("policy/numa-evicted-anon-4k", || {
        single(Rule::Task, Way::Evicted)
    }),
    Case::new("policy/numa-read-anon-4k", || single(Rule::Task, Way::Read)),
    Case::new("policy/numa-read-by-other-anon-4k", || {
        single(Rule::Task, Way::OthersRead)
    }),
    Case::new("policy/numa-unbound-anon-4k", || {
        single(Rule::Task, Way::Unbound)
    }),
    Case::new("policy/numa-others-bound-call-anon-4k", others_bound_call),
    Case::new("policy/numa-own-call-anon-thp", || {
        huge(Rule::Task, Way::OwnCall)
    }),
    Case::new("policy/numa-others-call-anon-thp", || {
        huge(Rule::Task, Way::OthersCall)
    }),
    Case::new("policy/numa-evicted-anon-thp", || {
        huge(Rule::Task, Way::Evicted)
    }),
    Case::new("policy/numa-mbind-others-call-anon-4k", || {
        single(Rule::Mapping, Way::OthersCall)
    }),
    Case::new("policy/numa-mbind-others-bound-call-anon-4k", || {
        single(Rule::Mapping, Way::OthersBoundCall)
    }),
    Case::new("policy/numa-mbind-evicted-anon-4k", || {
        single(Rule::Mapping, Way::Evicted)
    }),
    Case::new("policy/numa-mbind-evicted-anon-thp", || {
        huge(Rule::Mapping, Way::Evicted)
    }),
    Case::new(
        "policy/numa-mbind-evicted-behind-others-anon-4k",
        evicted_behind_others,
    ),
    Case::new("policy/numa-cpuset-others-call-anon-4k", || {
        single(Rule::Cpuset, Way::OthersCall)
    }),
    Case::new("policy/numa-cpuset-others-bound-call-anon-4k", || {
        single(Rule::Cpuset, Way::OthersBoundCall)
    }),
    Case::new("policy/numa-cpuset-evicted-anon-4k", || {
        single(Rule::Cpuset, Way::Evicted)
    }),
    Case::new("policy/numa-device-fault-anon-4k", || {
        device_faults(Rule::Task, || Memory::single(PAGES))
    }),
    Case::new("policy/numa-device-fault-anon-thp", || {
        device_faults(Rule::Task, || Memory::huge(2))
    }),
    Case::new("policy/numa-mbind-device-fault-anon-4k", || {
        device_faults(Rule::Mapping, || Memory::single(PAGES))
    }),
    Case::new("policy/numa-cpuset-device-fault-anon-4k", || {
        device_faults(Rule::Cpuset, || Memory::single(PAGES))
    }),
];

fn single(rule: Rule, way: Way) -> Result<()> {
    check(rule, way, || Memory::single(PAGES))
}

fn huge(rule: Rule, way: Way) -> Result<()> {
    check(rule, way, || Memory::huge(2))
}

/// A job of a bound child touches pages that nobody has touched before.
fn device_faults(rule: Rule, memory: impl Fn() -> Result<Memory>) -> Result<()> {
    need_two_nodes()?;
    let cpuset = cpuset_of(rule)?;
    fork(|| {
        let memory = memory()?;
        obey(rule, &memory, cpuset.as_ref())?;
        let jobs = Jobs::open()?;
        let report = jobs.done(&JobRequest::fill(memory.range(), 0x0101_0101_0101_0101))?;
        ensure!(report.faults > 0, "{report:?}");
        expect_bound(&memory)?;
        let wrong = memory.bytes().iter().filter(|&&byte| byte != 1).count();
        ensure!(wrong == 0, "{wrong} bytes were not filled");
        Ok(())
    })?
    .wait()
}

fn cpuset_of(rule: Rule) -> Result<Option<Cpuset>> {
    match rule {
        Rule::Cpuset => Cpuset::new("numa", &NODE.to_string()).map(Some),
        Rule::Task | Rule::Mapping => Ok(None),
    }
}

/// Binds the calling process, or its memory.
fn obey(rule: Rule, memory: &Memory, cpuset: Option<&Cpuset>) -> Result<()> {
    match rule {
        Rule::Task => bind(NODE),
        Rule::Mapping => bind_memory(memory),
        Rule::Cpuset => cpuset.context("no cgroup")?.enter(),
    }
}

/// Brings the pages of a bound child back, and has the child look where they are.
fn check(rule: Rule, way: Way, memory: impl Fn() -> Result<Memory>) -> Result<()> {
    need_two_nodes()?;
    let cpuset = cpuset_of(rule)?;
    let (there, back) = (Gate::new()?, Gate::new()?);
    // Nothing is in it yet: only its address is the parent's as well.
    let mut memory = memory()?;
    let range = memory.range();
    let child = fork(|| {
        obey(rule, &memory, cpuset.as_ref())?;
        memory.fill(1);
        let mover = Mover::open()?;
        mover.all_to_device(memory.range())?;
        there.open()?;
        back.wait()?;
        match way {
            Way::OwnCall => mover.to_system(memory.range()).map(drop)?,
            Way::Read => memory.touch(0..memory.pages()),
            _ => {}
        }
        mover.expect_in_system(memory.range()).or_else(|error| {
            // A device that came back has another node.
            if way == Way::Unbound {
                Ok(())
            } else {
                Err(error)
            }
        })?;
        expect_bound(&memory)?;
        memory.check(1)
    })?;
    there.wait()?;
    let process = child.process()?;
    match way {
        Way::OwnCall | Way::Read => {}
        Way::OthersCall => Mover::open()?.of(process).to_system(range).map(drop)?,
        Way::OthersBoundCall => fork(|| {
            bind(0)?;
            Mover::open()?.of(process).to_system(range).map(drop)
        })?
        .wait()?,
        Way::Evicted => {
            let bytes = range.end - range.start;
            let report = Mover::open()?.device.evict_bytes(bytes)?;
            ensure!(report.bytes_evicted == bytes, "{report:?}");
        }
        Way::Unbound => with_unbound(|| Ok(()))?,
        Way::OthersRead => {
            let mut byte = [0];
            for address in range.step_by(PAGE) {
                ptrace::read(child.id()?, address, &mut byte)?;
            }
        }
    }
    back.open()?;
    child.wait()
}

/// A caller with a policy of its own brings back the pages of a process that has none: they go where the process
/// would have them, not where the caller has its own.
fn others_bound_call() -> Result<()> {
    need_two_nodes()?;
    let (there, back) = (Gate::new()?, Gate::new()?);
    let child = fork(|| {
        let memory = filled(1)?;
        let before = nodes_of(&memory)?;
        let mover = Mover::open()?;
        mover.all_to_device(memory.range())?;
        there.open()?;
        back.wait()?;
        mover.expect_in_system(memory.range())?;
        let after = nodes_of(&memory)?;
        ensure!(
            after == before,
            "the pages were on {:?} and are on {:?}",
            &before[..8],
            &after[..8]
        );
        memory.check(1)
    })?;
    there.wait()?;
    let process = child.process()?;
    fork(|| {
        bind(NODE)?;
        Mover::open()?.of(process).to_system(0..1 << 47).map(drop)
    })?
    .wait()?;
    back.open()?;
    child.wait()
}

/// Pages that shared a block of the device with others, most of which have left it, go where their own mapping says.
fn evicted_behind_others() -> Result<()> {
    const OTHERS: usize = 200;
    need_two_nodes()?;
    let (mut others, mut bound) = (Memory::single(OTHERS)?, Memory::single(100)?);
    others.fill(1);
    bind_memory(&bound)?;
    bound.fill(2);
    let mover = Mover::open()?;
    mover.all_to_device(others.range())?;
    mover.all_to_device(bound.range())?;
    mover.to_system(others.part(0..OTHERS - 50))?;
    mover.device.evict_bytes(1 << 40)?;
    mover.expect_in_system(bound.range())?;
    expect_bound(&bound)?;
    others.check(1)?;
    bound.check(2)
}

/// Skips the case where there is only one node.
fn need_two_nodes() -> Result<()> {
    let nodes = std::fs::read_to_string("/sys/devices/system/node/has_memory")
        .context("cannot read which nodes have memory")?;
    match nodes.trim().starts_with("0-") {
        true => Ok(()),
        false => Err(skip(format!("nodes with memory: {}", nodes.trim()))),
    }
}

/// Binds the calling process to a node.
fn bind(node: i32) -> Result<()> {
    let mask = 1_u64 << node;
    // SAFETY: The kernel reads one word of the mask.
    let result = unsafe {
        libc::syscall(
            libc::SYS_set_mempolicy,
            libc::MPOL_BIND,
            &raw const mask,
            64,
        )
    };
    complete("set_mempolicy", result)
}

/// Binds a mapping to [`NODE`].
fn bind_memory(memory: &Memory) -> Result<()> {
    let mask = 1_u64 << NODE;
    // SAFETY: The mapping is the case's own, and the kernel reads one word of the mask.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mbind,
            memory.address(),
            memory.length(),
            libc::MPOL_BIND,
            &raw const mask,
            64,
            0,
        )
    };
    complete("mbind", result)
}

/// The node of each page.
fn nodes_of(memory: &Memory) -> Result<Vec<i32>> {
    let pages: Vec<u64> = memory.range().step_by(PAGE).collect();
    let mut nodes = vec![-1_i32; pages.len()];
    // SAFETY: Without target nodes the kernel only writes the node of each page to the array, which is as long as
    // the list of pages.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_pages,
            0,
            pages.len(),
            pages.as_ptr(),
            null::<i32>(),
            nodes.as_mut_ptr(),
            0,
        )
    };
    complete("move_pages", result)?;
    Ok(nodes)
}

fn complete(what: &str, result: i64) -> Result<()> {
    ensure!(result == 0, "{what}: {}", std::io::Error::last_os_error());
    Ok(())
}

/// Checks that every page is on [`NODE`].
fn expect_bound(memory: &Memory) -> Result<()> {
    let nodes = nodes_of(memory)?;
    let elsewhere = nodes.iter().filter(|&&node| node != NODE).count();
    ensure!(
        elsewhere == 0,
        "{elsewhere} of {} pages are not on node {NODE}: {:?}",
        nodes.len(),
        &nodes[..8]
    );
    Ok(())
}
