// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Signals that interrupt what a thread does.

use anyhow::{Result, ensure};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What becomes of a system call during which a signal comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cases) enum Calls {
    /// It ends with `EINTR`.
    End,
    /// The kernel begins it again, if it is one that can be.
    Restart,
}

/// Handles SIGUSR1 by doing nothing, from now on.
pub(in crate::cases) fn handle_by_nothing(calls: Calls) -> Result<()> {
    extern "C" fn ignore(_: libc::c_int) {}
    // SAFETY: All zero is a valid value.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = ignore as *const () as libc::sighandler_t;
    action.sa_flags = match calls {
        Calls::End => 0,
        Calls::Restart => libc::SA_RESTART,
    };
    // SAFETY: The handler does nothing, so it may run at any time.
    let result = unsafe { libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()) };
    ensure!(result == 0, std::io::Error::last_os_error());
    Ok(())
}

/// Does `work` while the calling thread gets a signal every 2 ms, which it handles by doing nothing.
pub(in crate::cases) fn while_interrupted<T>(
    calls: Calls,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    handle_by_nothing(calls)?;
    // SAFETY: The id of the calling thread takes no arguments.
    let thread = unsafe { libc::pthread_self() };
    let (stop, is_there) = (AtomicBool::new(false), Barrier::new(2));
    std::thread::scope(|scope| {
        let (stop, is_there) = (&stop, &is_there);
        scope.spawn(move || {
            is_there.wait();
            while !stop.load(Ordering::Relaxed) {
                // SAFETY: The thread runs until this scope ends.
                unsafe { libc::pthread_kill(thread, libc::SIGUSR1) };
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        // A thread that begins maps memory, which would wait for a batch.
        is_there.wait();
        let result = work();
        stop.store(true, Ordering::Relaxed);
        result
    })
}
