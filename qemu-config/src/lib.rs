// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! From pinned packages to a running guest.
//!
//! # Set-up: from the pins to an [`Environment`]
//! [`prepare`] finds or makes everything that a guest needs and returns where it is. Each step is cached under the
//! user's cache folder by the hash of its inputs.
//!
//! # Boot: from an [`Artifacts`] list to a guest that runs commands
//! [`guest::Guest::boot`] takes a [`guest::BootSpec`]: a shape of [`machine`], the devices, and what is in the
//! [`initramfs`]. [`accel`] decides whether the guest's processors are emulated.

pub mod accel;
mod artifacts;
mod cache;
mod command_line;
pub mod debian;
mod device_programs;
mod driver;
mod environment;
mod error;
pub mod guest;
pub mod host;
pub mod initramfs;
mod kernel;
pub mod machine;
mod packages;
mod pins;
mod process;
mod progress;
mod size;
pub mod supervisor;
mod survey;
mod sysroot;
mod workshop;

pub use artifacts::{ARTIFACTS_VARIABLE, Artifacts, Controls};
pub use cache::Cache;
pub use command_line::CommandLine;
pub use environment::{
    Environment, Kernel, KernelChoice, Launcher, SetupOptions, build_root, copy_driver,
    device_program, driver_of, kernel_programs, lint_driver, own_module, packages, prepare,
    test_hmm,
};
pub use error::{Result, SetupError};
pub use kernel::{OwnModule, ProgramBuild, SymbolDifference};
pub use pins::{BuildRootPins, KernelPin, Pins, QemuPins, Suites};
pub use progress::{Progress, Step};
pub use size::{ByteSize, SizeError};
pub use survey::{StepState, Survey, survey};
