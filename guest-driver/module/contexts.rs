// SPDX-License-Identifier: GPL-2.0-only

//! What a device keeps of contexts and jobs: which number belongs to which address space, which jobs run,
//! and the threads that serve them. `space` does the rest.

mod jobs;
mod numbers;
mod state;

pub(crate) use self::{
    jobs::{
        Job,
        JobEnd,
        JobListener, //
    },
    numbers::{
        ContextOwner,
        DeviceFault,
        Numbers, //
    },
    state::Contexts, //
};
