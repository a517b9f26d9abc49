// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Files that outlive their device, and processes that end in the middle of a call.

use crate::cases::support::depth;
use crate::cases::support::driver;
use crate::cases::support::mirror::{self, Mirror, expect};
use crate::cases::support::nodes;
use crate::cases::support::prelude::*;
use rustix::io::Errno;
use rustix::process::Signal;

pub(super) const CASES: &[Case] = &[
    Case::new("dmirror/unbind-under-an-open-file-anon-4k", unbind),
    Case::new("dmirror/killed-in-a-call-anon-4k", killed),
];

/// The device goes, with pages mapped on it and taken exclusively; the file says so, and the memory is whole.
fn unbind() -> Result<()> {
    let _driver = mirror::driver()?;
    let count = nodes::all().len();
    let mut memory = Memory::single(60)?;
    memory.fill(1);
    let node = Mirror::open(0)?;
    node.to_device(memory.part(0..20))?;
    node.exclusive(memory.part(20..40))?;
    node.read(memory.part(40..60))?;
    let device = driver::bound_devices()?
        .into_iter()
        .next()
        .context("no device is bound")?;
    driver::unbind(&device)?;
    let gone = "a device that is gone";
    expect(gone, node.read(memory.range()), Errno::NODEV)?;
    expect(gone, node.to_device(memory.range()), Errno::NODEV)?;
    expect(gone, node.snapshot(memory.range()), Errno::NODEV)?;
    memory.check(1)?;
    driver::bind(&device, count)?;
    // The file belongs to what was bound before.
    expect(gone, node.read(memory.range()), Errno::NODEV)?;
    let (_, done) = Mirror::open(0)?.read(memory.range())?;
    ensure!(done.faults == 1, "{done:?}");
    memory.check(1)
}

/// A process is killed while the device works for it. Nothing of it stays.
fn killed() -> Result<()> {
    const PAGES: usize = 4000;
    let _driver = mirror::driver()?;
    let mover = Mover::open()?;
    for round in 0..depth::rounds(10)? {
        let started = crate::cases::support::gate::Gate::new()?;
        let child = fork(|| {
            let node = Mirror::open(0)?;
            let mut memory = Memory::single(PAGES)?;
            memory.fill(1);
            let bytes = memory.bytes().to_vec();
            started.open()?;
            loop {
                node.write(memory.range(), &bytes)?;
                node.to_device(memory.range())?;
                node.exclusive(memory.part(0..50))?;
            }
        })?;
        started.wait()?;
        std::thread::sleep(std::time::Duration::from_millis(u64::from(7 * round)));
        child.signal(Signal::KILL)?;
        child.wait_for_signal(Signal::KILL)?;
        mover.wait_for_resident(0)?;
    }
    Ok(())
}
