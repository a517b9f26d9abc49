// SPDX-License-Identifier: GPL-2.0-only

//! Wakes the thread that looks after lost devices.

use kernel::{
    new_condvar,
    new_mutex,
    prelude::*,
    sync::{
        CondVar,
        Mutex, //
    },
    time::msecs_to_jiffies, //
};

struct State {
    is_wanted: bool,
    has_ended: bool,
}

/// Wakes one thread.
#[pin_data]
pub(crate) struct Wakeup {
    #[pin]
    state: Mutex<State>,
    #[pin]
    changed: CondVar,
}

impl Wakeup {
    /// The thread may sleep.
    pub(crate) fn new() -> impl PinInit<Self> {
        let state = State {
            is_wanted: false,
            has_ended: false,
        };
        pin_init!(Self {
            state <- new_mutex!(state, "loss::Wakeup::state"),
            changed <- new_condvar!("loss::Wakeup::changed"),
        })
    }

    /// Wakes the thread, or lets it not go to sleep once.
    pub(crate) fn wake(&self) {
        self.state.lock().is_wanted = true;
        self.changed.notify_all();
    }

    /// Ends the thread.
    pub(crate) fn end(&self) {
        self.state.lock().has_ended = true;
        self.changed.notify_all();
    }

    /// Sleeps until it is woken, at most so many milliseconds if there is a limit. Returns false when the thread is
    /// to end. For a thread of the kernel, which gets no signals.
    pub(crate) fn wait(&self, milliseconds: Option<u32>) -> bool {
        let mut state = self.state.lock();
        while !state.is_wanted && !state.has_ended {
            match milliseconds {
                // It does not count as busy meanwhile.
                None => drop(self.changed.wait_interruptible(&mut state)),
                Some(most) => {
                    let jiffies = msecs_to_jiffies(most);
                    drop(self.changed.wait_interruptible_timeout(&mut state, jiffies));
                    break;
                }
            }
        }
        state.is_wanted = false;
        !state.has_ended
    }
}
