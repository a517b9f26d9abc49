// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! What can go wrong, and what to do about it.

use super::Process;
use core::ops::Range;
use rustix::io::Errno;
use std::path::PathBuf;

/// A call on a device that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The node does not exist.
    #[error("{} does not exist: no device is bound; load the virtio_hmm module, and see the kernel log for why it refused the device", .path.display())]
    NoDevice {
        /// The node that was asked for.
        path: PathBuf,
    },
    /// The node could not be opened for another reason.
    #[error("cannot open {}: {errno}", .path.display())]
    Open {
        /// The node that was asked for.
        path: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The node does not answer INFO.
    #[error("{} is not a virtio_hmm device: it answers INFO with {errno}", .path.display())]
    NotHmm {
        /// The node that was asked for.
        path: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The driver speaks an older version of the interface.
    #[error("{} speaks version {found} of the interface, and {wanted} is needed: load a driver of the same release as this program", .path.display())]
    Version {
        /// The node that was asked for.
        path: PathBuf,
        /// The driver's version.
        found: u32,
        /// This crate's version.
        wanted: u32,
    },
    /// The device was unbound or is lost.
    #[error("{call}: the device is gone (unbound, removed or lost)")]
    Gone {
        /// The name of the ioctl.
        call: &'static str,
    },
    /// Another process's memory without the right to debug it, or a higher limit without privilege.
    #[error(
        "{call}: no permission: the memory of {process} takes the right to debug it, and a higher limit CAP_SYS_RESOURCE (run as root)"
    )]
    Permission {
        /// The name of the ioctl.
        call: &'static str,
        /// Whose memory was asked for.
        process: Process,
    },
    /// The process does not exist, or has no memory (any more).
    #[error("{call}: {process} does not exist or has no memory")]
    NoProcess {
        /// The name of the ioctl.
        call: &'static str,
        /// Whose memory was asked for.
        process: Process,
    },
    /// The driver refuses the arguments; with this client that is the range or the flags.
    #[error("{call}: {:#x}-{:#x} is no range of whole pages, or the flags do not go with the direction", .range.start, .range.end)]
    Range {
        /// The name of the ioctl.
        call: &'static str,
        /// The range that was asked for.
        range: Range<u64>,
    },
    /// Part of a range has no mapping, or the kernel has no memory.
    #[error("{call}: part of {:#x}-{:#x} has no mapping (or the kernel has no memory)", .range.start, .range.end)]
    NotMapped {
        /// The name of the ioctl.
        call: &'static str,
        /// The range that was asked for.
        range: Range<u64>,
    },
    /// The driver refuses an argument.
    #[error("{call}: the driver refuses an argument: an address that the process cannot have, one that is not aligned, or a length or count that is none")]
    Refused {
        /// The name of the ioctl.
        call: &'static str,
    },
    /// The device cannot do that.
    #[error("{call}: the device does not do this (INFO tells its features)")]
    Unsupported {
        /// The name of the ioctl.
        call: &'static str,
    },
    /// The memory of the calling process was named as that of another.
    #[error("JOB: the process is the calling one")]
    OwnMemory,
    /// Any other answer of the kernel.
    #[error("{call}: {errno}")]
    Call {
        /// The name of the ioctl.
        call: &'static str,
        /// The kernel's answer.
        errno: Errno,
    },
}

impl Error {
    /// The error of a call that is about no process.
    pub(super) fn of_device(call: &'static str, errno: Errno) -> Self {
        match errno {
            Errno::NODEV => Self::Gone { call },
            errno => Self::Call { call, errno },
        }
    }

    /// The error of a call about a range of a process.
    pub(super) fn of_range(
        call: &'static str,
        errno: Errno,
        process: Process,
        range: Range<u64>,
    ) -> Self {
        match errno {
            Errno::INVAL => Self::Range { call, range },
            errno => Self::of_process(call, errno, process),
        }
    }

    /// The error of a call about a process.
    pub(super) fn of_process(call: &'static str, errno: Errno, process: Process) -> Self {
        match errno {
            Errno::PERM => Self::Permission { call, process },
            Errno::SRCH => Self::NoProcess { call, process },
            errno => Self::of_device(call, errno),
        }
    }
}
