// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The nodes that speak the interface of the kernel's `test_hmm`.

use super::driver::Reloaded;
use super::ioctl::RawNode;
use super::memory::PAGE;
use super::process::Child;
use anyhow::{Context, Result, bail, ensure};
use hmm_uapi::dmirror::{self, Command};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd};
use std::ops::Range;
use std::path::PathBuf;
use zerocopy::IntoBytes;

/// Loads the driver so that it makes the nodes, for as long as the value exists.
pub(in crate::cases) fn driver() -> Result<Reloaded> {
    let driver = Reloaded::with("dmirror=1")?;
    ensure!(path(0).exists(), "there is no {}", path(0).display());
    Ok(driver)
}

/// The path of a node.
pub(in crate::cases) fn path(number: usize) -> PathBuf {
    PathBuf::from(format!("/dev/hmm_dmirror{number}"))
}

/// An open node. Each buffer is as large as the driver writes or reads.
#[derive(Debug)]
pub(in crate::cases) struct Mirror(RawNode);

/// What a call did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cases) struct Done {
    /// Pages that it dealt with.
    pub(in crate::cases) pages: usize,
    /// Device page faults.
    pub(in crate::cases) faults: u64,
}

impl Mirror {
    /// Opens the node of a device; the address space of this process is mirrored from now on.
    pub(in crate::cases) fn open(number: usize) -> Result<Self> {
        RawNode::open(&path(number)).map(Self)
    }

    /// Takes a node that a child has opened; it goes on mirroring the child.
    pub(in crate::cases) fn of_child(child: &Child, number: usize) -> Result<Self> {
        for entry in std::fs::read_dir(format!("/proc/{}/fd", child.id()?))? {
            let entry = entry?;
            if std::fs::read_link(entry.path()).is_ok_and(|link| link == path(number)) {
                let descriptor = entry.file_name().to_string_lossy().parse()?;
                let pid = Pid::from_raw(child.id()?).context("a process id is positive")?;
                let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
                let node = pidfd_getfd(pidfd, descriptor, PidfdGetfdFlags::empty())
                    .context("pidfd_getfd")?;
                return Ok(Self(RawNode::from(node)));
            }
        }
        bail!("the child has not opened {}", path(number).display())
    }

    /// The device reads a range.
    pub(in crate::cases) fn read(&self, range: Range<u64>) -> Result<(Vec<u8>, Done), Errno> {
        let mut bytes = vec![0; length(&range)];
        let done = self.call(dmirror::READ_NR, &range, &mut bytes)?;
        Ok((bytes, done))
    }

    /// As [`Self::read`], by the way that suits userfaultfd.
    pub(in crate::cases) fn read_unlocked(
        &self,
        range: Range<u64>,
    ) -> Result<(Vec<u8>, Done), Errno> {
        let mut bytes = vec![0; length(&range)];
        let done = self.call(dmirror::READ_UNLOCKED_NR, &range, &mut bytes)?;
        Ok((bytes, done))
    }

    /// The device writes a range.
    pub(in crate::cases) fn write(&self, range: Range<u64>, bytes: &[u8]) -> Result<Done, Errno> {
        assert_eq!(bytes.len(), length(&range));
        self.call(dmirror::WRITE_NR, &range, &mut bytes.to_vec())
    }

    /// Migrates a range to the device, which then reads it.
    pub(in crate::cases) fn to_device(&self, range: Range<u64>) -> Result<(Vec<u8>, Done), Errno> {
        let mut bytes = vec![0; length(&range)];
        let done = self.call(dmirror::MIGRATE_TO_DEVICE_NR, &range, &mut bytes)?;
        Ok((bytes, done))
    }

    /// Migrates a range to system memory.
    pub(in crate::cases) fn to_system(&self, range: Range<u64>) -> Result<Done, Errno> {
        self.call(dmirror::MIGRATE_TO_SYSTEM_NR, &range, &mut [])
    }

    /// One byte for each page of a range.
    pub(in crate::cases) fn snapshot(&self, range: Range<u64>) -> Result<Vec<u8>, Errno> {
        let mut bytes = vec![0; length(&range) / PAGE];
        self.call(dmirror::SNAPSHOT_NR, &range, &mut bytes)?;
        Ok(bytes)
    }

    /// Takes a range from the CPUs; the device then reads it.
    pub(in crate::cases) fn exclusive(&self, range: Range<u64>) -> Result<(Vec<u8>, Done), Errno> {
        let mut bytes = vec![0; length(&range)];
        let done = self.call(dmirror::EXCLUSIVE_NR, &range, &mut bytes)?;
        Ok((bytes, done))
    }

    /// `EPERM` if the device has a page of the range exclusively.
    pub(in crate::cases) fn check_exclusive(&self, range: Range<u64>) -> Result<(), Errno> {
        self.call(dmirror::CHECK_EXCLUSIVE_NR, &range, &mut [])
            .map(|_| ())
    }

    /// Evicts everything from the device.
    pub(in crate::cases) fn release(&self, range: Range<u64>) -> Result<(), Errno> {
        self.call(dmirror::RELEASE_NR, &range, &mut []).map(|_| ())
    }

    /// The next migration finds no huge page.
    pub(in crate::cases) fn refuse_huge(&self) -> Result<(), Errno> {
        let mut command = Command {
            pages: dmirror::FLAG_FAIL_ALLOC,
            ..Command::default()
        };
        self.raw(dmirror::FLAGS_NR, &mut command)
    }

    /// A call with any argument whose buffer nothing is written to.
    pub(in crate::cases) fn raw(&self, number: u8, command: &mut Command) -> Result<(), Errno> {
        self.0
            .call(dmirror::IOCTL_TYPE, number, command.as_mut_bytes())
    }

    fn call(&self, number: u8, range: &Range<u64>, buffer: &mut [u8]) -> Result<Done, Errno> {
        let mut command = Command {
            address: range.start,
            buffer: buffer.as_mut_ptr().expose_provenance() as u64,
            pages: (length(range) / PAGE) as u64,
            ..Command::default()
        };
        self.raw(number, &mut command)?;
        Ok(Done {
            pages: command.done as usize,
            faults: command.faults,
        })
    }
}

/// A range of other memory than that of the case.
pub(in crate::cases) fn pages_at(address: usize, pages: usize) -> Range<u64> {
    address as u64..(address + pages * PAGE) as u64
}

/// Checks that a call failed in this way.
pub(in crate::cases) fn expect<T: std::fmt::Debug>(
    what: &str,
    result: Result<T, Errno>,
    expected: Errno,
) -> Result<()> {
    match result {
        Err(found) if found == expected => Ok(()),
        found => Err(anyhow::anyhow!("expected {expected:?}, found {found:?}"))
            .with_context(|| what.to_owned()),
    }
}

fn length(range: &Range<u64>) -> usize {
    (range.end - range.start) as usize
}
