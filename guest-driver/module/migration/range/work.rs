// SPDX-License-Identifier: GPL-2.0-only

//! A request that the caller and its helpers work on.

use super::{
    frontier::Frontier,
    request::Request,
    team::Member,
    walk::walk, //
};
use crate::{
    device::Device,
    migration::{
        migrate_args::MigrateArgs,
        tally::Tally, //
    },
    policy::WatchedSpace,
    sys::{
        address_space::{
            process::Process,
            snapshot::Snapshot, //
        },
        services::signal::signal_waits, //
    }, //
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::AtomicFlag,
        Arc,
        Mutex, //
    }, //
};

/// The part of a thread in a request.
#[derive(Clone, Copy)]
pub(super) enum Role<'a> {
    /// The thread that made the request, and whether it is told to stop.
    Caller(&'a dyn Fn() -> bool),
    /// A worker that helps.
    Helper(&'a Member),
}

/// A request that several threads work on.
#[pin_data]
pub(super) struct Work {
    process: Process,
    known: Option<WatchedSpace>,
    args: MigrateArgs,
    #[pin]
    snapshot: Snapshot,
    pub(super) frontier: Frontier,
    /// Whether device memory was short.
    pub(super) was_short: AtomicFlag,
    #[pin]
    pub(super) result: Mutex<Outcome>,
}

/// What came of it so far.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) tally: Tally,
    pub(super) error: Option<Error>,
}

impl Work {
    /// A request that no thread has begun.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new(
        process: Process,
        known: Option<WatchedSpace>,
        frontier: Frontier,
        args: MigrateArgs,
    ) -> Result<Arc<Self>> {
        let seen = process.mm().clone();
        Arc::pin_init(
            try_pin_init!(Self {
                process,
                known,
                args,
                // Before the mmap lock is taken.
                snapshot <- Snapshot::new(&seen),
                frontier,
                was_short: AtomicFlag::new(false),
                result <- new_mutex!(Outcome::default(), "migration::range::Work::result"),
            }? Error),
            GFP_KERNEL,
        )
    }

    /// Takes pieces and moves them until there are none, an error occurs, or the caller gets a
    /// signal.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: no piece was taken. Errors of pieces are in the result.
    pub(super) fn run(&self, device: &Device, role: Role<'_>) -> Result {
        if self.frontier.is_exhausted() {
            return Ok(());
        }
        let request = Request {
            device,
            process: &self.process,
            mm: self.process.mm(),
            gives_up: &|| {
                self.look_around(role);
                self.frontier.is_stopped() || device.link().is_stopping()
            },
            known: self.known.as_ref(),
            args: self.args,
            snapshot: &self.snapshot,
            frontier: &self.frontier,
            was_short: &self.was_short,
        };
        let mut tally = Tally::default();
        let result = device.engine().scratches.with(|scratch| {
            while let Some(piece) = self.frontier.take() {
                walk(&request, piece, scratch, &mut tally)?;
                self.look_around(role);
            }
            Ok(())
        })?;
        let mut outcome = self.result.lock();
        outcome.tally.add(&tally);
        if let Err(error) = result {
            self.frontier.stop();
            outcome.error = Some(error);
        }
        Ok(())
    }

    /// Has the caller look whether the request is to end.
    fn look_around(&self, role: Role<'_>) {
        match role {
            Role::Caller(is_stopped) => self.heed(is_stopped),
            Role::Helper(member) => member.report(),
        }
    }

    /// Lets no thread take another piece if a signal waits for the caller, which calls this, if it is
    /// told to stop, or if the process has left.
    pub(super) fn heed(&self, is_stopped: &dyn Fn() -> bool) {
        if signal_waits() || is_stopped() || self.process.has_left() {
            self.frontier.stop();
        }
    }
}
