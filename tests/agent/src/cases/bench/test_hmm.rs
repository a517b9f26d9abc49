// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The node of the kernel's own `test_hmm`, as far as it is measured.

use crate::cases::support::ioctl::RawNode;
use crate::cases::support::memory::{HUGE, Memory};
use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::time::Instant;
use zerocopy::IntoBytes as _;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes};

const NODE: &str = "/dev/hmm_dmirror0";
/// The ioctl type byte.
const TYPE: u8 = b'H';
const READ: u8 = 0;
const MIGRATE_TO_DEVICE: u8 = 2;
const MIGRATE_TO_SYSTEM: u8 = 3;

/// The argument of all its calls.
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Command {
    /// First address of the range.
    address: u64,
    /// Where contents are copied to.
    buffer: u64,
    /// Pages of the range.
    pages: u64,
    /// Written: pages that were copied or moved.
    done: u64,
    /// Written: faults of the device.
    faults: u64,
}

/// An open node. As long as it is open, every change of the process's address space is told to the driver.
pub(super) struct TestHmm {
    node: RawNode,
    /// Where it copies contents to. It is written to before, so that no page is missing when it is measured.
    buffer: Memory,
}

impl TestHmm {
    /// Opens the node, and gets ready for `bytes` bytes.
    pub(super) fn open(bytes: usize) -> Result<Self> {
        let mut buffer = Memory::huge(bytes.div_ceil(HUGE))?;
        buffer.bytes_mut().fill(1);
        Ok(Self {
            node: RawNode::open(Path::new(NODE))?,
            buffer,
        })
    }

    /// Moves memory to the device, after which the driver also copies its contents to the caller.
    pub(super) fn to_device(&self, memory: &Memory) -> Result<()> {
        self.call(MIGRATE_TO_DEVICE, memory, memory.pages() as u64)
            .context("test_hmm, to the device")
    }

    /// Moves what is on the device to system memory.
    pub(super) fn to_system(&self, memory: &Memory) -> Result<()> {
        self.call(MIGRATE_TO_SYSTEM, memory, 0)
            .context("test_hmm, to system memory")
    }

    /// Copies the contents to the caller, and returns how long that took, nanoseconds.
    pub(super) fn read(&self, memory: &Memory) -> Result<u64> {
        let started = Instant::now();
        self.call(READ, memory, memory.pages() as u64)
            .context("test_hmm, reading")?;
        u64::try_from(started.elapsed().as_nanos()).context("a time beyond all measure")
    }

    /// Makes a call, and checks that at least so many pages were dealt with.
    fn call(&self, number: u8, memory: &Memory, pages: u64) -> Result<()> {
        let mut command = Command {
            address: memory.range().start,
            buffer: self.buffer.range().start,
            pages: memory.pages() as u64,
            ..Command::default()
        };
        self.node.call(TYPE, number, command.as_mut_bytes())?;
        ensure!(
            command.done >= pages,
            "{} of {pages} pages were dealt with",
            command.done
        );
        Ok(())
    }
}
