// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The device is reset, or taken away and given back, in order.

use super::beside::{JobsMay, beside_moves_and_jobs};
use super::trial::{Trial, counter};
use crate::cases::support::driver;
use crate::cases::support::host;
use crate::cases::support::jobs::{Jobs, crc32c};
use crate::cases::support::nodes;
use crate::cases::support::prelude::*;
use hmm_control::Question;
use hmm_uapi::JobStatus;
use hmm_uapi::client::JobRequest;
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

pub(super) const CASES: &[Case] = &[
    Case::new("loss/reset-by-sysfs-anon-4k", || {
        reset(Memory::single(600)?)
    }),
    Case::new("loss/reset-by-sysfs-anon-thp", || reset(Memory::huge(2)?)),
    Case::new("loss/reset-while-moving-anon-4k", reset_while_moving),
    Case::new(
        "loss/reset-while-jobs-begin-anon-4k",
        reset_while_jobs_begin,
    ),
    Case::new("loss/remove-and-rescan-anon-4k", remove_and_rescan),
    Case::new("loss/no-restart-anon-4k", no_restart),
    Case::new("loss/guest-stops-anon-4k", guest_stops),
];

/// The folders of the devices on the PCI bus.
fn pci_devices() -> Result<Vec<PathBuf>> {
    (driver::bound_devices()?.iter())
        .map(|device| {
            let path = Path::new("/sys/bus/virtio/devices").join(device);
            // The entry is a link into the folder of the PCI device.
            let path = path.canonicalize()?;
            Ok(path
                .parent()
                .context("a device without a parent")?
                .to_owned())
        })
        .collect()
}

/// The folder of the first device.
fn pci_device() -> Result<PathBuf> {
    (pci_devices()?.into_iter())
        .next()
        .context("no device is bound")
}

fn reset_device(folder: &Path) -> Result<()> {
    let file = folder.join("reset");
    if !file.exists() {
        return Err(skip("this device cannot be reset alone"));
    }
    fs::write(&file, "1").with_context(|| format!("cannot write to {}", file.display()))
}

/// The contents stay, and the reset does not wait for a time-out.
fn reset(mut memory: Memory) -> Result<()> {
    let mover = Mover::open()?;
    memory.fill(1);
    mover.all_to_device(memory.range())?;
    let (folder, timeouts) = (pci_device()?, mover.device.stats()?.timeouts);
    for _ in 0..3 {
        reset_device(&folder)?;
        mover.expect_on_device(memory.range())?;
    }
    memory.check(1)?;
    ensure!(
        mover.device.stats()?.timeouts == timeouts,
        "a time-out was counted"
    );
    mover.all_to_device(memory.range())?;
    memory.check(1)
}

fn reset_while_moving() -> Result<()> {
    let mover = Mover::open()?;
    let mut memory = Memory::single(2000)?;
    memory.fill(1);
    let folder = pci_device()?;
    let timeouts = mover.device.stats()?.timeouts;
    std::thread::scope(|scope| -> Result<()> {
        let resets = scope.spawn(|| -> Result<()> {
            for _ in 0..10 {
                reset_device(&folder)?;
            }
            Ok(())
        });
        while !resets.is_finished() {
            for direction in [Direction::ToDevice, Direction::ToSystem] {
                mover.call(memory.range(), direction, MigrateFlags::default())?;
            }
        }
        match resets.join() {
            Ok(result) => result,
            Err(_) => bail!("a thread panicked"),
        }
    })?;
    memory.check(1)?;
    ensure!(
        mover.device.stats()?.timeouts == timeouts,
        "a time-out was counted"
    );
    Ok(())
}

/// A job that is begun while the device is reset is done, or ends as cancelled; it is never refused.
fn reset_while_jobs_begin() -> Result<()> {
    const RESETS: usize = 20;
    let jobs = Jobs::open()?;
    let mut memory = Memory::single(16)?;
    memory.fill(1);
    let expected = u64::from(crc32c(memory.bytes()));
    let folder = pci_device()?;
    let (ended, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| -> Result<()> {
        let resets = scope.spawn(|| -> Result<()> {
            let reset = || -> Result<()> {
                let before = ended.load(Ordering::Relaxed);
                reset_device(&folder)?;
                while ended.load(Ordering::Relaxed) == before && !stop.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Ok(())
            };
            (0..RESETS).try_for_each(|_| reset())
        });
        let begun = (|| -> Result<()> {
            while !resets.is_finished() {
                let id = jobs.begin(&JobRequest::crc32c(memory.range(), 0))?;
                let report = jobs.wait(id)?;
                ended.fetch_add(1, Ordering::Relaxed);
                match report.status {
                    None | Some(JobStatus::Ok) => {
                        ensure!(report.result == expected, "a job found other bytes");
                    }
                    Some(JobStatus::Cancelled) => {}
                    Some(_) => bail!("a job ended with {report:x?}"),
                }
            }
            Ok(())
        })();
        stop.store(true, Ordering::Relaxed);
        match resets.join() {
            Ok(result) => result.and(begun),
            Err(_) => bail!("a thread panicked"),
        }
    })
    .with_context(|| format!("after {} jobs", ended.load(Ordering::Relaxed)))?;
    let report = jobs.done(&JobRequest::crc32c(memory.range(), 0))?;
    ensure!(report.result == expected, "the last job found other bytes");
    memory.check(1)
}

/// All pages are in system memory while the devices are away. All of them go, so that they come back in their order.
fn remove_and_rescan() -> Result<()> {
    let mut memory = Memory::single(600)?;
    memory.fill(1);
    Mover::open()?.all_to_device(memory.range())?;
    let devices = nodes::all().len();
    for folder in pci_devices()? {
        fs::write(folder.join("remove"), "1").context("cannot remove the device")?;
    }
    memory.check(1)?;
    ensure!(!nodes::exist(), "a device is gone and its node is there");
    fs::write("/sys/bus/pci/rescan", "1").context("cannot look for devices")?;
    while nodes::all().len() < devices {
        std::thread::sleep(Duration::from_millis(10));
    }
    Mover::open()?.all_to_device(memory.range())?;
    memory.check(1)
}

/// Where something else starts devices anew, the driver gives a device up at the first answer that does not come.
fn no_restart() -> Result<()> {
    let trial = Trial::new()?;
    let resident = trial.memory(600, 1)?;
    let mut memory = Memory::table()?;
    memory.fill(2);
    let before = (counter("losses")?, counter("timeouts")?);
    (trial.faults).add(json!({ "action": "drop", "queue": "bulk", "count": 1 }))?;
    (trial.mover).call(memory.range(), Direction::ToDevice, MigrateFlags::default())?;
    let after = (counter("losses")?, counter("timeouts")?);
    ensure!(
        after == (before.0 + 1, before.1 + 1),
        "losses and time-outs were {before:?} and are {after:?}"
    );
    trial.forgive()?;
    trial.come_back()?;
    resident.check(1)?;
    memory.check(2)
}

/// QEMU stops the guest's processors and lets them go on, several times, while memory moves and a job runs. The device stops
/// and goes on with them.
fn guest_stops() -> Result<()> {
    const TIMES: usize = 3;
    let mover = Mover::open()?;
    let mut resident = Memory::single(600)?;
    resident.fill(1);
    mover.all_to_device(resident.range())?;
    let resident = resident;
    let timeouts = mover.device.stats()?.timeouts;
    beside_moves_and_jobs(JobsMay::NotEnd, || {
        (0..TIMES).try_for_each(|_| host::ask(&Question::StopGuest).map(drop))
    })?;
    mover.expect_on_device(resident.range())?;
    resident.check(1)?;
    ensure!(
        mover.device.stats()?.timeouts == timeouts,
        "a time-out was counted"
    );
    Ok(())
}
