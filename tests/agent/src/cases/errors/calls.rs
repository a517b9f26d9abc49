// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Calls that the driver must refuse, each with the error that `docs/uapi.md` promises.

use crate::cases::support::gate::Gate;
use crate::cases::support::ioctl::{RawNode, expect_errno};
use crate::cases::support::nodes;
use crate::cases::support::prelude::*;
use hmm_uapi::client::{Device, MigrateRequest};
use hmm_uapi::{
    INFO_NR, IOCTL_TYPE, Info, JOB_WAIT_NR, MIGRATE_NR, Migrate, RESIDENCY_NR, RESIDENCY_PAGES_MAX,
    Residency, STATS_NR, Stats,
};
use rustix::io::Errno;
use rustix::mm::MprotectFlags;
use zerocopy::IntoBytes;

pub(super) const CASES: &[Case] = &[
    Case::new("errors/ioctl-number", numbers),
    Case::new("errors/ioctl-size", sizes),
    Case::new("errors/ioctl-flags", flags),
    Case::new("errors/ioctl-range", ranges),
    Case::new("errors/ioctl-pid", pids),
    Case::new("errors/ioctl-pointer", pointers),
    Case::new("errors/ioctl-permission", permission),
    Case::new("errors/node-inherited", inherited),
];

fn node() -> Result<RawNode> {
    RawNode::open(&nodes::first())
}

fn own_migrate(memory: &Memory) -> Migrate {
    Migrate {
        direction: Direction::ToDevice as u32,
        start: memory.range().start,
        end: memory.range().end,
        ..Migrate::default()
    }
}

fn own_residency(memory: &Memory) -> Residency {
    Residency {
        start: memory.range().start,
        end: memory.range().end,
        ..Residency::default()
    }
}

fn migrate(node: &RawNode, mut argument: Migrate) -> Result<(), Errno> {
    node.call(IOCTL_TYPE, MIGRATE_NR, argument.as_mut_bytes())
}

fn residency(node: &RawNode, mut argument: Residency) -> Result<(), Errno> {
    node.call(IOCTL_TYPE, RESIDENCY_NR, argument.as_mut_bytes())
}

fn numbers() -> Result<()> {
    let node = node()?;
    let mut argument = [0; 256];
    for number in [JOB_WAIT_NR + 1, JOB_WAIT_NR + 2, 100, 255] {
        let result = node.call(IOCTL_TYPE, number, &mut argument);
        expect_errno(&format!("number {number}"), result, Errno::NOTTY)?;
    }
    for kind in [0, b'H', IOCTL_TYPE - 1, 255] {
        let result = node.call(kind, INFO_NR, &mut argument[..size_of::<Info>()]);
        expect_errno(&format!("type {kind}"), result, Errno::NOTTY)?;
    }
    Ok(())
}

fn sizes() -> Result<()> {
    let node = node()?;
    let mut memory = Memory::single(1)?;
    memory.fill(1);
    let valid: [(u8, Vec<u8>); 4] = [
        (INFO_NR, Info::default().as_bytes().to_vec()),
        (MIGRATE_NR, own_migrate(&memory).as_bytes().to_vec()),
        (RESIDENCY_NR, own_residency(&memory).as_bytes().to_vec()),
        (STATS_NR, Stats::default().as_bytes().to_vec()),
    ];
    for (number, argument) in valid {
        let call = |mut argument: Vec<u8>| node.call(IOCTL_TYPE, number, &mut argument);
        call(argument.clone()).with_context(|| format!("ioctl {number} as it is"))?;
        for size in [0, 1, 8, argument.len() - 1] {
            expect_errno(
                &format!("ioctl {number} with {size} bytes"),
                call(argument[..size].to_vec()),
                Errno::INVAL,
            )?;
        }
        // What a newer program knows is accepted if it does not want it.
        for more in [1, 8, 500] {
            let mut longer = argument.clone();
            longer.resize(argument.len() + more, 0);
            call(longer.clone())
                .with_context(|| format!("ioctl {number} with {more} bytes more"))?;
            if let Some(last) = longer.last_mut() {
                *last = 1;
            }
            expect_errno(
                &format!("ioctl {number} with {more} bytes more, not zero"),
                call(longer),
                Errno::TOOBIG,
            )?;
        }
    }
    memory.check(1)
}

fn flags() -> Result<()> {
    let node = node()?;
    let memory = Memory::single(1)?;
    let known = MigrateFlags::ALL.0;
    let unknown = [known + 1, 1 << 30, u32::MAX];
    for flags in unknown {
        let mut argument = own_migrate(&memory);
        argument.flags = flags;
        expect_errno(
            &format!("MIGRATE flags {flags:#x}"),
            migrate(&node, argument),
            Errno::INVAL,
        )?;
    }
    for flags in [1, 1 << 31, u32::MAX] {
        let mut argument = own_residency(&memory);
        argument.flags = flags;
        expect_errno("RESIDENCY flags", residency(&node, argument), Errno::INVAL)?;
        let mut info = Info {
            flags,
            ..Info::default()
        };
        expect_errno(
            "INFO flags",
            node.call(IOCTL_TYPE, INFO_NR, info.as_mut_bytes()),
            Errno::INVAL,
        )?;
        for (first, second) in [(flags, 0), (0, flags)] {
            let mut stats = Stats {
                flags: first,
                reserved: second,
                ..Stats::default()
            };
            expect_errno(
                "STATS flags or reserved",
                node.call(IOCTL_TYPE, STATS_NR, stats.as_mut_bytes()),
                Errno::INVAL,
            )?;
        }
    }
    for direction in [0, 3, u32::MAX] {
        let mut argument = own_migrate(&memory);
        argument.direction = direction;
        expect_errno(
            &format!("direction {direction}"),
            migrate(&node, argument),
            Errno::INVAL,
        )?;
    }
    let mut argument = own_migrate(&memory);
    argument.reserved = 1;
    expect_errno("MIGRATE reserved", migrate(&node, argument), Errno::INVAL)?;
    // The flags of this version are about the way to the device.
    for flags in [MigrateFlags::POPULATE.0, MigrateFlags::MLOCKED.0] {
        let mut argument = own_migrate(&memory);
        argument.direction = Direction::ToSystem as u32;
        argument.flags = flags;
        expect_errno(
            "flags on the way home",
            migrate(&node, argument),
            Errno::INVAL,
        )?;
    }
    Ok(())
}

fn ranges() -> Result<()> {
    let node = node()?;
    let memory = Memory::single(4)?;
    let (start, end) = (memory.range().start, memory.range().end);
    let last = u64::MAX - PAGE as u64 + 1;
    let wrong = [
        ("an unaligned start", start + 1, end),
        ("an unaligned end", start, end - 8),
        ("an empty range", start, start),
        ("an empty range at 0", 0, 0),
        ("a range turned round", end, start),
        ("a range that wraps", last, PAGE as u64),
        ("a range to the end of all addresses", last, 0),
    ];
    for (what, start, end) in wrong {
        let mut argument = own_migrate(&memory);
        (argument.start, argument.end) = (start, end);
        expect_errno(
            &format!("MIGRATE of {what}"),
            migrate(&node, argument),
            Errno::INVAL,
        )?;
        let mut argument = own_residency(&memory);
        (argument.start, argument.end) = (start, end);
        expect_errno(
            &format!("RESIDENCY of {what}"),
            residency(&node, argument),
            Errno::INVAL,
        )?;
    }
    let mut argument = own_residency(&memory);
    argument.end = argument.start + (RESIDENCY_PAGES_MAX + 1) * PAGE as u64;
    expect_errno(
        "RESIDENCY of too much",
        residency(&node, argument),
        Errno::TOOBIG,
    )?;
    // Addresses that no process has are addresses without a mapping.
    let moved = Mover::open()?.to_device(1 << 63..(1 << 63) + 3 * PAGE as u64)?;
    moved.expect(0, &[(SkipReason::Unmapped, 3)])
}

fn pids() -> Result<()> {
    let node = node()?;
    let memory = Memory::single(1)?;
    let expect = |what: &str, pid: i32| -> Result<()> {
        let mut argument = own_migrate(&memory);
        argument.pid = pid;
        expect_errno(
            &format!("MIGRATE of {what}"),
            migrate(&node, argument),
            Errno::SRCH,
        )?;
        let mut argument = own_residency(&memory);
        argument.pid = pid;
        expect_errno(
            &format!("RESIDENCY of {what}"),
            residency(&node, argument),
            Errno::SRCH,
        )
    };
    expect("a negative pid", -1)?;
    expect("a pid that cannot be", i32::MAX)?;
    // Process 2 is the kernel's own, and has no memory.
    expect("a kernel thread", 2)?;
    let gone = Gate::new()?;
    let child = fork(|| gone.wait())?;
    let pid = child.id()?;
    gone.open()?;
    // A process that has ended and is not buried yet has no memory either.
    let state = || -> Result<bool> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        Ok(stat
            .rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with('Z')))
    };
    while !state()? {
        std::thread::yield_now();
    }
    expect("a dead process", pid)?;
    child.wait()?;
    expect("a buried process", pid)
}

fn pointers() -> Result<()> {
    let node = node()?;
    let mut memory = Memory::single(3)?;
    memory.fill(1);
    let nowhere = Memory::single(1)?;
    nowhere.unmap(0..1)?;
    for (what, address) in [
        ("no memory", nowhere.address()),
        ("address 0", 0),
        ("the kernel's memory", 0xffff_8880_0000_0000),
        ("the last address", usize::MAX - 8),
    ] {
        for (number, size) in [
            (INFO_NR, size_of::<Info>()),
            (MIGRATE_NR, size_of::<Migrate>()),
            (RESIDENCY_NR, size_of::<Residency>()),
            (STATS_NR, size_of::<Stats>()),
        ] {
            let result = node.call_at(IOCTL_TYPE, number, size, address);
            expect_errno(&format!("ioctl {number} at {what}"), result, Errno::FAULT)?;
        }
        let mut argument = own_residency(&memory);
        argument.map = address as u64;
        // 0 says that no map is wanted.
        if address != 0 {
            expect_errno(
                &format!("a map at {what}"),
                residency(&node, argument),
                Errno::FAULT,
            )?;
        }
    }
    // Memory that can be read and not written.
    let mut structure = Memory::single(1)?;
    let argument = own_residency(&memory);
    structure.bytes_mut()[..size_of::<Residency>()].copy_from_slice(argument.as_bytes());
    structure.protect(0..1, MprotectFlags::READ)?;
    let result = node.call_at(
        IOCTL_TYPE,
        RESIDENCY_NR,
        size_of::<Residency>(),
        structure.address(),
    );
    expect_errno("a structure that cannot be written", result, Errno::FAULT)?;
    memory.check(1)
}

/// Opened by root, used without privileges.
fn permission() -> Result<()> {
    let node = nodes::first();
    let (ready, done) = (Gate::new()?, Gate::new()?);
    let mut memory = Memory::single(20)?;
    let range = memory.range();
    let roots = fork(|| {
        memory.fill(1);
        ready.open()?;
        done.wait()?;
        memory.check(1)
    })?;
    ready.wait()?;
    let other = roots.process()?;
    let nobodys = fork(|| {
        let device = Device::open(&node)?;
        let user = rustix::process::Uid::from_raw(65534);
        rustix::thread::set_thread_uid(user).context("cannot become nobody")?;
        let mut memory = Memory::single(20)?;
        memory.fill(2);
        let mut request = MigrateRequest {
            process: Process::Caller,
            range: memory.range(),
            direction: Direction::ToDevice,
            flags: MigrateFlags::default(),
        };
        // The own memory takes no privilege, also not under the own number.
        let moved = device.migrate_all(&request)?.pages_moved;
        ensure!(moved == 20, "nobody moved {moved} of 20 own pages");
        request.process = Process::from_id(std::process::id().cast_signed()).context("no id")?;
        device.migrate_all(&request)?;
        memory.check(2)?;
        request.process = other;
        request.range = range.clone();
        let refused = device.migrate(&request);
        ensure!(
            matches!(refused, Err(hmm_uapi::client::Error::Permission { .. })),
            "nobody moved root's memory: {refused:?}"
        );
        let refused = device.residency(other, range.clone());
        ensure!(
            matches!(refused, Err(hmm_uapi::client::Error::Permission { .. })),
            "nobody looked at root's memory: {refused:?}"
        );
        ensure!(
            Device::open(&node).is_err(),
            "nobody may open {}",
            node.display()
        );
        Ok(())
    })?;
    let result = nobodys.wait();
    done.open()?;
    roots.wait()?;
    result
}

/// A node is used by two processes that know it from the same opening, and closed by one of them.
fn inherited() -> Result<()> {
    let mover = Mover::open()?;
    let mut memory = Memory::single(200)?;
    memory.fill(1);
    mover.all_to_device(memory.range())?;
    let range = memory.range();
    let child = fork(|| {
        // For this process, the pages that it shares with its parent are its own.
        mover.expect_on_device(range.clone())?;
        memory.fill(2);
        mover.all_to_device(range.clone())?;
        // The end of the process closes the node.
        memory.check(2)
    })?;
    child.wait()?;
    mover.all_to_device(memory.range())?;
    memory.check(1)
}
