// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What of the set-up exists already. Makes nothing.

use std::path::PathBuf;

use crate::driver;
use crate::environment::{KernelChoice, SetupOptions, workshop};
use crate::host::{self, Finding, Mirror, Task};
use crate::kernel::{self, DebugKernel, ModuleTree};
use crate::sysroot::{self, BuildRoot};
use crate::{Progress, Result};

/// One step of the set-up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepState {
    /// Its name, which is also that of its folder in the cache.
    pub name: &'static str,
    /// What it is for.
    pub purpose: &'static str,
    /// Where it is, or `None` when it has not been made for the present pins and sources.
    pub folder: Option<PathBuf>,
}

/// What set-up would start from.
#[derive(Debug)]
pub struct Survey {
    /// The programs and files of the host that set-up needs.
    pub host: Vec<Finding>,
    /// Those that only the fuzzer needs.
    pub fuzzer: Vec<Finding>,
    /// Why the build root cannot be entered, although bubblewrap is there.
    pub sandbox_problem: Option<String>,
    /// The host's own QEMU, when it has the device that is needed.
    pub host_qemu: Option<PathBuf>,
    /// The mirror, or why there is none.
    pub mirror: Result<String>,
    /// The cache.
    pub cache: PathBuf,
    /// The steps.
    pub steps: Vec<StepState>,
}

/// Looks at the machine and the cache. Nothing is downloaded, made or installed.
///
/// # Errors
/// When the pins or the driver's sources cannot be read, or the cache cannot be opened.
pub fn survey(options: &SetupOptions) -> Result<Survey> {
    let workshop = workshop(options, &Progress::new())?;
    let tree = ModuleTree::open(&options.kernel)?;
    let step = |name, purpose, key| StepState {
        name,
        purpose,
        folder: workshop.cache.find(name, &key),
    };
    let mut steps = vec![
        step(
            sysroot::QEMU_STEP,
            "QEMU and virtiofsd",
            sysroot::qemu_key(&workshop),
        ),
        step(
            sysroot::BUILD_ROOT_STEP,
            "the compilers of the driver and of the debug kernel",
            BuildRoot::key(&workshop),
        ),
    ];
    match options.kernel {
        KernelChoice::Stock => steps.extend([
            step(
                kernel::IMAGE_STEP,
                "the stock kernel",
                kernel::image_key(&workshop),
            ),
            step(
                kernel::SOURCE_STEP,
                "the kernel's source",
                kernel::source_key(&workshop),
            ),
            step(
                kernel::TREE_STEP,
                "the prepared kernel tree",
                kernel::tree_key(&workshop),
            ),
        ]),
        KernelChoice::Debug => steps.extend([
            step(
                kernel::SOURCE_STEP,
                "the kernel's source",
                kernel::source_key(&workshop),
            ),
            step(
                DebugKernel::Plain.step(),
                "the debug kernel and its tree",
                DebugKernel::Plain.key(&workshop)?,
            ),
        ]),
        KernelChoice::Fixed => steps.extend([
            step(
                kernel::SOURCE_STEP,
                "the kernel's source",
                kernel::source_key(&workshop),
            ),
            step(
                kernel::FIXES_STEP,
                "the kernel's source with the project's patches",
                kernel::fixes_key(&workshop)?,
            ),
            step(
                DebugKernel::Fixed.step(),
                "the fixed kernel and its tree",
                DebugKernel::Fixed.key(&workshop)?,
            ),
        ]),
        // What a user has built is looked at when it is opened.
        KernelChoice::Tree(_) => {}
    }
    steps.push(step(
        driver::STEP,
        "the driver, from the present sources",
        driver::key(&workshop, &tree)?,
    ));
    Ok(Survey {
        host: host::examine(Task::Setup),
        fuzzer: host::examine(Task::Fuzz),
        sandbox_problem: host::sandbox_problem(),
        host_qemu: sysroot::host_qemu().map(|launcher| launcher.program),
        mirror: Mirror::choose(options.mirror.as_deref()).map(|mirror| mirror.to_string()),
        cache: workshop.cache.root().to_owned(),
        steps,
    })
}
