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
        order::Order,
        tally::Tally, //
    },
    policy::Known,
    sys::{
        address_space::snapshot::Snapshot,
        services::signal::signal_waits, //
    }, //
};
use kernel::{
    mm::MmWithUser,
    new_mutex,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::AtomicFlag,
        Arc,
        Mutex, //
    }, //
};

/// The part of a thread in a request.
#[derive(Clone, Copy)]
pub(super) enum Role<'a> {
    /// The thread that made the request.
    Caller,
    /// A worker that helps.
    Helper(&'a Member),
}

/// A request that several threads work on.
#[pin_data]
pub(super) struct Work {
    mm: ARef<MmWithUser>,
    known: Option<Known>,
    order: Order,
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
        mm: ARef<MmWithUser>,
        known: Option<Known>,
        frontier: Frontier,
        order: Order,
    ) -> Result<Arc<Self>> {
        let seen = mm.clone();
        Arc::pin_init(
            try_pin_init!(Self {
                mm,
                known,
                order,
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
            mm: &self.mm,
            known: self.known.as_ref(),
            order: self.order,
            snapshot: &self.snapshot,
            frontier: &self.frontier,
            was_short: &self.was_short,
        };
        let mut tally = Tally::default();
        let result = device.engine().scratches.with(|scratch| {
            while let Some(piece) = self.frontier.take() {
                walk(&request, piece, scratch, &mut tally)?;
                match role {
                    Role::Caller => self.heed_signals(),
                    Role::Helper(member) => member.report(),
                }
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

    /// Lets no thread take another piece if a signal waits for the caller, who calls this.
    pub(super) fn heed_signals(&self) {
        if signal_waits() {
            self.frontier.stop();
        }
    }
}
