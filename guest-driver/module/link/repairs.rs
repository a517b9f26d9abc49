// SPDX-License-Identifier: GPL-2.0-only

//! What the thread is asked for that starts the device anew.

use super::why::Why;
use kernel::{
    new_condvar,
    new_mutex,
    prelude::*,
    sync::{
        CondVar,
        Mutex, //
    }, //
};

/// What the thread is to do.
pub(super) struct Wanted {
    /// A reset, if the device has not been reset since this number of resets, and why.
    pub(super) since: Option<(u32, Why)>,
    pub(super) end: bool,
}

/// What the thread is asked for.
#[pin_data]
pub(super) struct Repairs {
    #[pin]
    pub(super) wanted: Mutex<Wanted>,
    #[pin]
    pub(super) asked: CondVar,
}

impl Repairs {
    /// Nothing is asked for.
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            wanted <- new_mutex!(Wanted { since: None, end: false }, "link::Repairs::wanted"),
            asked <- new_condvar!("link::Repairs::asked"),
        })
    }
}
