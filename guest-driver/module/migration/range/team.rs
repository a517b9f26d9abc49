// SPDX-License-Identifier: GPL-2.0-only

//! The workers that help with a request, for which the caller waits.

use kernel::{
    new_condvar,
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        CondVar,
        Mutex, //
    }, //
};

/// The workers that help with one request.
#[pin_data]
pub(super) struct Team {
    #[pin]
    members: Mutex<usize>,
    #[pin]
    left: CondVar,
}

impl Team {
    /// No worker helps yet.
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            members <- new_mutex!(0, "migration::range::Team::members"),
            left <- new_condvar!("migration::range::Team::left"),
        })
    }

    /// Adds a worker.
    pub(super) fn join(team: &Arc<Self>) -> Member {
        *team.members.lock() += 1;
        Member(team.clone())
    }

    /// Waits until all members have left, and calls `meanwhile` whenever one has done a piece, or waits
    /// for the mmap lock. Their work is bounded once the request is to end.
    pub(super) fn wait(&self, meanwhile: impl Fn()) {
        let mut members = self.members.lock();
        let mut is_interrupted = false;
        while *members > 0 {
            if is_interrupted {
                self.left.wait(&mut members);
            } else {
                is_interrupted = self.left.wait_interruptible(&mut members);
            }
            meanwhile();
        }
    }
}

/// A place in the team, which is left by dropping it.
pub(super) struct Member(Arc<Team>);

impl Member {
    /// Lets the caller, which waits for the team, check for signals.
    pub(super) fn report(&self) {
        self.0.left.notify_one();
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        *self.0.members.lock() -= 1;
        self.0.left.notify_one();
    }
}
