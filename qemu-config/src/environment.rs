// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The result of set-up: what booting a guest needs.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;
use std::sync::atomic::AtomicBool;
use std::thread::ScopedJoinHandle;

use serde::{Deserialize, Serialize};

use crate::cache::Cache;
use crate::device_programs;
use crate::driver;
use crate::kernel::{self, ModuleTree, OwnModule, ProgramBuild};
use crate::packages::{Apt, megabytes};
use crate::pins::Pins;
use crate::sysroot::{BuildRoot, emulator, extra};
use crate::workshop::Workshop;
use crate::{Progress, Result, SetupError};

/// A program and the arguments that must stand before the caller's own.
///
/// A program from an unpacked package is started through that package's loader, so that `program` may be the loader
/// and `args` its library path, the program itself and its data folders.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launcher {
    /// What is executed.
    pub program: PathBuf,
    /// The first arguments.
    pub args: Vec<OsString>,
}

impl Launcher {
    /// A command that has the first arguments already.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.args);
        command
    }
}

/// The kernel that the guest boots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// The image for QEMU's `-kernel`.
    pub image: PathBuf,
    /// What `uname -r` says in the guest.
    pub release: String,
    /// Whether it is built to find bugs, which makes it several times slower.
    pub debug: bool,
}

/// Which kernel the guest boots and the driver is built for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum KernelChoice {
    /// The unmodified kernel of `pins.toml`.
    #[default]
    Stock,
    /// A kernel that finds bugs, built from the stock kernel's source with `kernel/debug.config`.
    Debug,
    /// The debug kernel with the patches of `kernel/fixes`.
    Fixed,
    /// A kernel tree that the user has built, with Rust and what the driver needs enabled.
    Tree(PathBuf),
}

impl fmt::Display for KernelChoice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stock => formatter.write_str("stock kernel"),
            Self::Debug => formatter.write_str("debug kernel"),
            Self::Fixed => formatter.write_str("fixed kernel"),
            Self::Tree(folder) => write!(formatter, "kernel of {}", folder.display()),
        }
    }
}

impl FromStr for KernelChoice {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text {
            "stock" => Self::Stock,
            "debug" => Self::Debug,
            "fixed" => Self::Fixed,
            path => Self::Tree(PathBuf::from(path)),
        })
    }
}

/// What the caller of [`prepare`] may choose.
#[derive(Debug, Clone, Default)]
pub struct SetupOptions {
    /// Use what the cache has and no network.
    pub offline: bool,
    /// The Debian mirror; the machine's own apt configuration decides when it is `None`.
    pub mirror: Option<String>,
    /// The kernel.
    pub kernel: KernelChoice,
    /// The file of pins; the project's own when it is `None`.
    pub pins: Option<PathBuf>,
    /// The folder of the cache; `virtio-hmm` in the user's cache folder when it is `None`.
    pub cache: Option<PathBuf>,
}

/// Everything that a guest needs, ready to be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// QEMU for x86-64 with a generic vhost-user device, with the folders of its firmware.
    pub qemu: Launcher,
    /// The first line of `qemu --version`.
    pub qemu_version: String,
    /// The daemon that shares a host folder with the guest.
    pub virtiofsd: Launcher,
    /// The kernel.
    pub kernel: Kernel,
    /// `virtio_hmm.ko`, built for exactly this kernel.
    pub module: PathBuf,
    /// Modules that the guest loads before the driver: some of the kernel itself, and the one that delays functions.
    pub helper_modules: Vec<PathBuf>,
    /// The folder of the cache, for further cached steps.
    pub cache: PathBuf,
}

/// Finds or makes everything that a guest needs.
///
/// # Errors
/// Says what is missing and what to do about it. What was made before the error stays in the cache.
pub fn prepare(options: &SetupOptions, progress: &Progress) -> Result<Environment> {
    let workshop = workshop(options, progress)?;
    let tree = ModuleTree::open(&options.kernel)?;
    // The three lines meet in the mirror, which serves one at a time; what each does with its packages overlaps.
    let lines = std::thread::scope(|scope| {
        let emulator = scope.spawn(|| workshop.line(|| emulator(&workshop)));
        let kernel = scope.spawn(|| workshop.line(|| tree.kernel(&workshop)));
        let modules = workshop.line(|| {
            let module = driver::module(&workshop, &tree)?;
            let mut helpers = tree.helper_modules(&workshop)?;
            if tree.has_probes() {
                helpers.push(driver::delays(&workshop, &tree)?);
            }
            Ok((module, helpers))
        });
        (joined(emulator), joined(kernel), modules)
    });
    let downloaded = workshop.apt.downloaded();
    if downloaded > 0 {
        progress.line(&format!("downloaded {} in all", megabytes(downloaded)));
    }
    match lines {
        (Ok(emulator), Ok(kernel), Ok((module, helper_modules))) => Ok(Environment {
            qemu: emulator.qemu,
            qemu_version: emulator.version,
            virtiofsd: emulator.virtiofsd,
            kernel,
            module,
            helper_modules,
            cache: workshop.cache.root().to_owned(),
        }),
        (emulator, kernel, modules) => {
            let errors = [emulator.err(), kernel.err(), modules.err()];
            Err(cause(errors.into_iter().flatten()))
        }
    }
}

/// Of several errors, the one that stopped the others.
pub(crate) fn cause(errors: impl Iterator<Item = SetupError>) -> SetupError {
    errors.fold(SetupError::Stopped, |first, next| match first {
        SetupError::Stopped => next,
        first => first,
    })
}

/// Checks the form and the lints of the driver's sources with the tools of the compiler that builds it.
///
/// # Errors
/// Those of the tools, whole, and those of [`prepare`].
pub fn lint_driver(options: &SetupOptions, progress: &Progress) -> Result<()> {
    let tree = ModuleTree::open(&options.kernel)?;
    driver::lint(&workshop(options, progress)?, &tree)
}

/// Copies what the driver is built from to a folder, for [`driver_of`].
///
/// # Errors
/// When a file cannot be read or written.
pub fn copy_driver(folder: &Path) -> Result<()> {
    driver::copy(&repository()?, folder)
}

/// Finds or builds the driver from a copy of its sources, which may have changed since [`copy_driver`].
///
/// # Errors
/// Those of the tools, whole, and those of [`prepare`].
pub fn driver_of(sources: &Path, options: &SetupOptions, progress: &Progress) -> Result<PathBuf> {
    let tree = ModuleTree::open(&options.kernel)?;
    driver::module_of(sources, &workshop(options, progress)?, &tree)
}

/// Finds or builds a module of the kernel's own for the kernel that is chosen. A guest has it in its image only if the
/// caller puts it there.
///
/// # Errors
/// As [`prepare`].
pub fn own_module(
    module: OwnModule,
    options: &SetupOptions,
    progress: &Progress,
) -> Result<PathBuf> {
    let tree = ModuleTree::open(&options.kernel)?;
    kernel::own_module(module, &workshop(options, progress)?, &tree)
}

/// The module that the driver is compared with; see [`OwnModule::TestHmm`].
///
/// # Errors
/// As [`prepare`].
pub fn test_hmm(options: &SetupOptions, progress: &Progress) -> Result<PathBuf> {
    own_module(OwnModule::TestHmm, options, progress)
}

/// Finds or builds programs from the source of the kernel that is chosen, and returns the folder with them.
///
/// # Errors
/// As [`prepare`], and when the script fails or builds nothing.
pub fn kernel_programs(
    build: ProgramBuild<'_>,
    options: &SetupOptions,
    progress: &Progress,
) -> Result<PathBuf> {
    let tree = ModuleTree::open(&options.kernel)?;
    kernel::programs(build, &workshop(options, progress)?, &tree)
}

/// Finds or builds a program with functions that the CPU and the device both run; see
/// `guest-driver/uapi/examples/structures`.
///
/// # Errors
/// As [`prepare`], and those of the compilers, whole.
pub fn device_program(options: &SetupOptions, progress: &Progress) -> Result<PathBuf> {
    device_programs::structures(&workshop(options, progress)?)
}

/// Finds or makes the build root: an unpacked Debian system with ordinary programs and much text.
///
/// # Errors
/// As [`prepare`].
pub fn build_root(options: &SetupOptions, progress: &Progress) -> Result<PathBuf> {
    let root = BuildRoot::get(&workshop(options, progress)?)?;
    Ok(root.folder().to_owned())
}

/// Finds or makes a folder with these packages of Debian and all that they need to run; `name` is a word of letters, digits
/// and hyphens.
///
/// # Errors
/// As [`prepare`], and when there is no such package.
pub fn packages(
    name: &str,
    packages: &[String],
    options: &SetupOptions,
    progress: &Progress,
) -> Result<PathBuf> {
    extra(&workshop(options, progress)?, name, packages)
}

/// What every step works with.
pub(crate) fn workshop(options: &SetupOptions, progress: &Progress) -> Result<Workshop> {
    let repository = repository()?;
    let pins = match &options.pins {
        Some(pins) => Pins::load(pins)?,
        None => Pins::load(&repository.join("qemu-config/pins.toml"))?,
    };
    let cache = Cache::open(options.cache.clone())?;
    let apt = Apt::new(
        &cache,
        &pins.suites,
        options.mirror.clone(),
        options.offline,
    );
    Ok(Workshop {
        pins,
        cache,
        progress: progress.clone(),
        repository,
        apt,
        offline: options.offline,
        stop: AtomicBool::new(false),
    })
}

/// The root of the project that this program was built from: it holds the sources of the driver.
fn repository() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    std::fs::canonicalize(&root).map_err(SetupError::io("find the project in", &root))
}

fn joined<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_that_stopped_the_others_is_told() {
        let failure = || SetupError::invalid(Path::new("/pins"), "the cause");
        for errors in [
            vec![SetupError::Stopped, failure()],
            vec![failure(), SetupError::Stopped],
            vec![SetupError::Stopped, failure(), SetupError::Stopped],
        ] {
            let told = cause(errors.into_iter()).to_string();
            assert!(told.contains("the cause"), "{told}");
        }
    }

    #[test]
    fn a_kernel_is_named_or_a_path() {
        assert_eq!("stock".parse(), Ok(KernelChoice::Stock));
        assert_eq!("debug".parse(), Ok(KernelChoice::Debug));
        assert_eq!("fixed".parse(), Ok(KernelChoice::Fixed));
        let tree = KernelChoice::Tree(PathBuf::from("../linux"));
        assert_eq!("../linux".parse(), Ok(tree));
    }
}
