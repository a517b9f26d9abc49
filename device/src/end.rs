// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How the process ends: its exit codes, the request to end, and panics.

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// Exit code for arguments, files and sockets that cannot be used.
pub const EXIT_CONFIGURATION: u8 = 1;
/// Exit code for a failure of the process itself.
pub const EXIT_INTERNAL: i32 = 70;

/// The request to end the process. All clones share one state.
#[derive(Clone, Debug, Default)]
pub(crate) struct End {
    wanted: Arc<AtomicBool>,
}

impl End {
    pub(crate) fn want(&self) {
        self.wanted.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }
}

/// Makes a panic of any thread the end of the process: half a device is worse than none. Only the message is printed: a
/// backtrace would need files that the sandbox has closed.
pub fn end_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("without a name");
        let _ = writeln!(std::io::stderr(), "vhost-user-hmm: thread {name}: {panic}");
        // SAFETY: _exit() takes no pointers. Destructors must not run: the state is not to be trusted.
        unsafe { libc::_exit(EXIT_INTERNAL) }
    }));
}
