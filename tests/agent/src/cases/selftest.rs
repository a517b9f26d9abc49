// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `selftest/*`: cases that go wrong, each in its own way, so that the host can check that it notices. They run only
//! when they are asked for by their whole name.

use super::support::inject::Faults;
use super::support::prelude::*;
use serde_json::json;
use std::time::Duration;

pub(super) const CASES: &[Case] = &[
    Case::new("selftest/passes", || Ok(())),
    Case::new("selftest/fails", || bail!("this case fails")),
    Case::new("selftest/skips", || Err(skip("this case cannot run"))),
    Case::new("selftest/panics", || panic!("this case panics")),
    Case::new("selftest/crashes", || std::process::abort()),
    Case::new("selftest/hangs", hangs).within(2),
    Case::new("selftest/child-hangs", child_hangs),
    Case::new("selftest/loses-a-byte", loses_a_byte),
    Case::new("selftest/load-loses-bits", load_loses_bits),
    Case::new("selftest/removes-the-driver", removes_the_driver),
    Case::new("selftest/splat", splat),
];

fn hangs() -> Result<()> {
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// The case ends and leaves a process behind, with memory on the device.
fn child_hangs() -> Result<()> {
    let ready = super::support::gate::Gate::new()?;
    let child = fork(|| {
        let mut memory = Memory::single(10)?;
        memory.fill(1);
        Mover::open()?.all_to_device(memory.range())?;
        ready.open()?;
        hangs()
    })?;
    std::mem::forget(child);
    ready.wait()
}

fn loses_a_byte() -> Result<()> {
    let mover = Mover::open()?;
    let mut memory = Memory::single(10)?;
    memory.fill(1);
    mover.all_to_device(memory.range())?;
    memory.bytes_mut()[5 * PAGE + 7] ^= 1;
    memory.check(1)
}

/// The load on a device that inverts a bit now and then.
fn load_loses_bits() -> Result<()> {
    let faults = Faults::of_first_device()?;
    faults.add(json!({ "action": "corrupt", "op": "to_device", "every": 997 }))?;
    super::load::run(1, Duration::from_secs(60)).map(drop)
}

fn removes_the_driver() -> Result<()> {
    super::support::driver::unload().context("cannot remove the module")
}

/// A line in the kernel's log that looks as if the kernel had found a bug.
fn splat() -> Result<()> {
    std::fs::write("/dev/kmsg", "BUG: selftest of the guest tests")
        .context("cannot write to the kernel's log")
}
