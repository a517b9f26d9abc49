// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The memory of another process, as a debugger sees it.

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, WaitOptions, waitpid};
use std::io;

/// `process_vm_readv`.
pub(in crate::cases) fn read(pid: i32, address: u64, buffer: &mut [u8]) -> Result<()> {
    let local = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    let remote = remote(address, buffer.len());
    // SAFETY: The local vector is a buffer that is borrowed mutably; the remote one is the other process's affair.
    let length =
        unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) };
    complete("process_vm_readv", length, buffer.len())
}

/// `process_vm_writev`.
pub(in crate::cases) fn write(pid: i32, address: u64, bytes: &[u8]) -> Result<()> {
    let local = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    let remote = remote(address, bytes.len());
    // SAFETY: The kernel only reads the local vector; the remote one is the other process's affair.
    let length =
        unsafe { libc::process_vm_writev(pid, &raw const local, 1, &raw const remote, 1, 0) };
    complete("process_vm_writev", length, bytes.len())
}

fn remote(address: u64, length: usize) -> libc::iovec {
    libc::iovec {
        iov_base: std::ptr::without_provenance_mut(address as usize),
        iov_len: length,
    }
}

fn complete(call: &str, done: isize, expected: usize) -> Result<()> {
    if done < 0 {
        return Err(io::Error::last_os_error()).context(call.to_owned());
    }
    ensure!(
        done.cast_unsigned() == expected,
        "{call}: {done} of {expected} bytes"
    );
    Ok(())
}

/// A process that is stopped and traced.
#[derive(Debug)]
pub(in crate::cases) struct Tracer {
    pid: i32,
}

impl Tracer {
    /// Stops a child and traces it.
    pub(in crate::cases) fn attach(pid: i32) -> Result<Self> {
        // SAFETY: The request takes no address.
        let result = unsafe { libc::ptrace(libc::PTRACE_ATTACH, pid, 0, 0) };
        ensure!(
            result == 0,
            "cannot trace the child: {}",
            io::Error::last_os_error()
        );
        let (_, status) = waitpid(Pid::from_raw(pid), WaitOptions::UNTRACED)?
            .context("the child has no status")?;
        ensure!(status.stopped(), "the child did not stop: {status:?}");
        Ok(Self { pid })
    }

    /// Reads a word.
    pub(in crate::cases) fn peek(&self, address: u64) -> Result<u64> {
        let mut word = 0_u64;
        // SAFETY: The bare system call stores the word at the last address, which is that of a variable.
        let result = unsafe {
            libc::syscall(
                libc::SYS_ptrace,
                libc::PTRACE_PEEKDATA,
                self.pid,
                address,
                &raw mut word,
            )
        };
        ensure!(result == 0, "PEEKDATA: {}", io::Error::last_os_error());
        Ok(word)
    }

    /// Writes a word.
    pub(in crate::cases) fn poke(&self, address: u64, word: u64) -> Result<()> {
        // SAFETY: Both are values for the other process.
        let result = unsafe { libc::ptrace(libc::PTRACE_POKEDATA, self.pid, address, word) };
        ensure!(result == 0, "POKEDATA: {}", io::Error::last_os_error());
        Ok(())
    }

    /// Lets the process go on by itself.
    pub(in crate::cases) fn detach(self) -> Result<()> {
        // SAFETY: The request takes no address.
        let result = unsafe { libc::ptrace(libc::PTRACE_DETACH, self.pid, 0, 0) };
        ensure!(result == 0, "DETACH: {}", io::Error::last_os_error());
        Ok(())
    }
}
