// SPDX-License-Identifier: GPL-2.0-only

//! Whether a device works with the pool, and for what it may be used.
//!
//! A pool is *parked* until a device attaches to it. While the device is *attached*, requests and
//! CPU faults reach it. Before it goes it is *drained*: requests are refused, and faults and the
//! eviction of what is left still reach it. Then it is detached, and the pool is parked again: its
//! pages and their records stay, and CPU faults find no device. Whether they wait for one is for `loss` to say.
//!
//! ```text
//! Parked --attach--> Attached --drain--> Draining --detach--> Parked
//! ```
//!
//! # Lock order
//!
//! `Attachment::state` > the users of the device. A thread that uses the device must not attach,
//! drain or detach.

use crate::{
    policy::BringBack,
    sys::{
        address_space::tracking::KeptTables,
        device_memory::{
            pagemap::{
                Fault,
                FaultError, //
            },
            placement::Placement, //
        },
        services::slot::{
            Entered,
            Slot, //
        }, //
    }, //
};
use core::ops::Deref;
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    }, //
};

/// A device that migrates pages back when a CPU touches them.
pub(crate) trait FaultServer: Send + Sync + 'static {
    /// See [`Operations::migrate_to_ram`].
    ///
    /// [`Operations::migrate_to_ram`]: crate::sys::device_memory::pagemap::Operations::migrate_to_ram
    ///
    /// # Errors
    ///
    /// [`FaultError`].
    fn serve(&self, fault: &Fault<'_>) -> Result<(), FaultError>;

    /// See [`BringBack::bring_back`].
    fn bring_back(&self, tables: KeptTables<'_>, placement: Option<Placement>);
}

impl<D: FaultServer> BringBack for Attachment<D> {
    fn bring_back(&self, tables: KeptTables<'_>, placement: Option<Placement>) {
        if let Some(device) = self.for_fault() {
            device.bring_back(tables, placement);
        }
    }
}

/// The states of an [`Attachment`].
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// No device.
    Parked,
    /// Requests and faults reach the device.
    Attached,
    /// Only faults reach the device.
    Draining,
}

/// The place of the device that works with a pool.
///
/// # Invariants
///
/// `device` is filled unless the state is `Parked`; `requests` is filled only if it is `Attached`.
#[pin_data]
pub(super) struct Attachment<D> {
    #[pin]
    state: Mutex<State>,
    #[pin]
    device: Slot<Arc<D>>,
    /// Lets requests in.
    #[pin]
    requests: Slot<()>,
}

impl<D> Attachment<D> {
    /// No device is attached.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            try_pin_init!(Self {
                state <- new_mutex!(State::Parked, "Attachment::state"),
                device <- Slot::new(),
                requests <- Slot::new(),
            }? Error),
            GFP_KERNEL,
        )
    }

    /// Attaches a device.
    ///
    /// # Errors
    ///
    /// `EBUSY`: there is one already.
    pub(super) fn attach(&self, device: Arc<D>) -> Result {
        let mut state = self.state.lock();
        if *state != State::Parked {
            return Err(EBUSY);
        }
        self.device.put(device)?;
        *state = State::Draining;
        self.requests.put(())?;
        *state = State::Attached;
        Ok(())
    }

    /// Refuses requests from now on, and waits for those under way.
    pub(super) fn drain(&self) {
        let mut state = self.state.lock();
        if *state == State::Attached {
            self.requests.take();
            *state = State::Draining;
        }
    }

    /// Parks the pool if this device is attached, and waits for the faults that the device still serves. Another one
    /// that has taken its place stays.
    pub(super) fn detach(&self, device: &Arc<D>) {
        let mut state = self.state.lock();
        let is_attached =
            (self.device.enter()).is_some_and(|attached| Arc::ptr_eq(&*attached, device));
        if !is_attached {
            return;
        }
        if *state == State::Attached {
            self.requests.take();
        }
        let taken = self.device.take();
        *state = State::Parked;
        drop(state);
        drop(taken);
    }

    /// The device, for a request; `None` unless it is attached and not being drained.
    pub(super) fn for_request(&self) -> Option<Attached<'_, D>> {
        let request = self.requests.enter()?;
        Some(Attached {
            device: self.device.enter()?,
            _request: Some(request),
        })
    }

    /// The device, for a CPU fault; `None` if the pool is parked.
    pub(super) fn for_fault(&self) -> Option<Attached<'_, D>> {
        Some(Attached {
            device: self.device.enter()?,
            _request: None,
        })
    }
}

/// A device that stays attached until this is dropped.
pub(crate) struct Attached<'a, D> {
    device: Entered<'a, Arc<D>>,
    _request: Option<Entered<'a, ()>>,
}

impl<D> Deref for Attached<'_, D> {
    type Target = D;

    fn deref(&self) -> &D {
        &self.device
    }
}
