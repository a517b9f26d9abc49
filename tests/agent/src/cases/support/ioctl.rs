// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! ioctls as no client would make them.

use anyhow::{Context, Result, ensure};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::AsRawFd;
use std::path::Path;

/// An open node without a client around it.
#[derive(Debug)]
pub(in crate::cases) struct RawNode(OwnedFd);

impl From<OwnedFd> for RawNode {
    fn from(node: OwnedFd) -> Self {
        Self(node)
    }
}

impl RawNode {
    /// Opens a node.
    pub(in crate::cases) fn open(path: &Path) -> Result<Self> {
        let node = rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Self(node))
    }

    /// An ioctl of this type and number, whose size is that of the argument.
    pub(in crate::cases) fn call(
        &self,
        kind: u8,
        number: u8,
        argument: &mut [u8],
    ) -> Result<(), Errno> {
        // Each of the ioctls here reads and writes at most as many bytes as its number says.
        self.call_at(
            kind,
            number,
            argument.len(),
            argument.as_mut_ptr().expose_provenance(),
        )
    }

    /// An ioctl with an argument at any address, also one that the process does not have. Nothing else may be at an
    /// address that it has.
    pub(in crate::cases) fn call_at(
        &self,
        kind: u8,
        number: u8,
        size: usize,
        address: usize,
    ) -> Result<(), Errno> {
        /// `_IOC(READ | WRITE, …)`.
        const READ_WRITE: u64 = 3 << 30;
        let request =
            READ_WRITE | (size as u64 & 0x3fff) << 16 | u64::from(kind) << 8 | u64::from(number);
        // SAFETY: The kernel checks the address and answers EFAULT where the process has no memory.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), request, address) };
        if result >= 0 {
            return Ok(());
        }
        let code = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
        Err(Errno::from_raw_os_error(code))
    }
}

/// Checks that a call was refused for this reason.
pub(in crate::cases) fn expect_errno(
    what: &str,
    result: Result<(), Errno>,
    expected: Errno,
) -> Result<()> {
    ensure!(
        result == Err(expected),
        "{what}: expected {expected:?}, found {result:?}"
    );
    Ok(())
}
