// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Swap space: a loop device over a file in memory.

use super::memory::PAGE;
use crate::cases::case::skip;
use anyhow::{Context, Result, ensure};
use rustix::fs::{FallocateFlags, MemfdFlags};
use std::ffi::CString;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

const CONTROL: &str = "/dev/loop-control";
const LOOP_CTL_GET_FREE: u64 = 0x4c82;
const LOOP_SET_FD: u64 = 0x4c00;
const LOOP_CLR_FD: u64 = 0x4c01;

/// Swap space. It is taken away with the value.
#[derive(Debug)]
pub(in crate::cases) struct Swap {
    device: File,
    path: CString,
    on: bool,
}

impl Swap {
    /// So many pages; a skip where the kernel has no swap or no loop devices.
    pub(in crate::cases) fn new(pages: u32) -> Result<Self> {
        let Ok(control) = File::open(CONTROL) else {
            return Err(skip("the kernel has no loop devices"));
        };
        let file = rustix::fs::memfd_create("swap", MemfdFlags::CLOEXEC)?;
        let file = File::from(file);
        // The loop device charges pages that it has to allocate to the cgroup whose memory it writes out, which would
        // gain nothing.
        rustix::fs::fallocate(
            &file,
            FallocateFlags::empty(),
            0,
            u64::from(pages) * PAGE as u64,
        )
        .context("no memory for the swap space")?;
        write_header(&file, pages)?;
        // SAFETY: The call takes no argument.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
        ensure!(number >= 0, "there is no free loop device");
        let path = format!("/dev/loop{number}");
        let device = (File::options().read(true).write(true).open(&path))
            .with_context(|| format!("cannot open {path}"))?;
        // SAFETY: The argument is a descriptor, which the kernel checks.
        let set = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_SET_FD, file.as_raw_fd()) };
        ensure!(
            set == 0,
            "{path} takes no file: {}",
            std::io::Error::last_os_error()
        );
        let mut swap = Self {
            device,
            path: CString::new(path)?,
            on: false,
        };
        // SAFETY: The path is a text that ends with a zero byte.
        let on = unsafe { libc::swapon(swap.path.as_ptr(), 0) };
        ensure!(on == 0, "swapon: {}", std::io::Error::last_os_error());
        swap.on = true;
        Ok(swap)
    }

    /// Brings everything back and ends the use of the space.
    pub(in crate::cases) fn off(&mut self) -> Result<()> {
        // SAFETY: As in `new`.
        let off = unsafe { libc::swapoff(self.path.as_ptr()) };
        ensure!(off == 0, "swapoff: {}", std::io::Error::last_os_error());
        self.on = false;
        Ok(())
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        if self.on {
            // A destructor cannot report an error.
            let _ = self.off();
        }
        // SAFETY: The call takes no argument.
        unsafe { libc::ioctl(self.device.as_raw_fd(), LOOP_CLR_FD) };
    }
}

/// What the kernel expects in the first page: a version, the last page, no bad pages, and a signature at the end.
fn write_header(file: &File, pages: u32) -> Result<()> {
    const BODY: usize = 1024;
    const SIGNATURE: &[u8] = b"SWAPSPACE2";
    let mut header = vec![0; PAGE];
    header[BODY..BODY + 4].copy_from_slice(&1_u32.to_ne_bytes());
    header[BODY + 4..BODY + 8].copy_from_slice(&(pages - 1).to_ne_bytes());
    header[PAGE - SIGNATURE.len()..].copy_from_slice(SIGNATURE);
    file.write_all_at(&header, 0)
        .context("cannot write the header of the swap space")
}
