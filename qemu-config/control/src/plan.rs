// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the guest's init reads from its image before it can talk to the host.

use serde::{Deserialize, Serialize};

/// Where the plan is in the guest's image.
pub const PATH: &str = "/hmm/plan.json";
/// Where the guest's own programs are, both in its image and in the host's root folder as the guest shows it.
pub const PROGRAMS: &str = "/run/hmm/bin";
/// The program with functions that the device runs, where the image has it.
pub const DEVICE_PROGRAM: &str = "/hmm/structures";
/// Where a command finds the `/proc` of the whole guest. Its own `/proc` has the processes that it started.
pub const WHOLE_PROC: &str = "/run/hmm/proc";

/// How the guest is to be set up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// [`crate::VERSION`] of the host that made the image.
    pub version: u32,
    /// Modules to load in this order before the driver, as paths in the image. One that fails to load is noted
    /// and left out.
    pub helper_modules: Vec<String>,
    /// The driver, as a path in the image. A guest without it is used to try an accelerator.
    pub driver: Option<Driver>,
    /// The virtiofs tag of the host's root folder, when it is shared.
    pub host_root: Option<String>,
}

/// The driver's module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Driver {
    /// Its path in the image.
    pub path: String,
    /// Module parameters, as `insmod` takes them.
    pub parameters: String,
    /// How many of its device nodes must be there before the guest counts as ready.
    pub devices: u32,
}
