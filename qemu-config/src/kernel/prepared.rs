// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The tree that modules for the stock kernel are built against: Debian's source and configuration, prepared by the
//! compilers that built the stock kernel, with the stock kernel's list of symbols.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::config_value;
use super::symbols::{SymbolDifference, rebuilt_symbols, stock_symbols};
use crate::cache::{Key, KeyBuilder};
use crate::packages::{Closure, Request, unpack};
use crate::pins::Pins;
use crate::sysroot::BuildRoot;
use crate::workshop::Workshop;
use crate::{Result, SetupError, process};

/// The name of the step.
pub(crate) const STEP: &str = "kernel-tree";
const VERSION: u32 = 1;

/// Where the two halves stand inside the build root. The build writes these paths into its files, so that they are the
/// same wherever the cache is.
const SOURCE_INSIDE: &str = "/build/source";
const TREE_INSIDE: &str = "/build/tree";

const SOURCE: &str = "source";
const TREE: &str = "tree";
const SYMVERS: &str = "Module.symvers";
const CONFIG: &str = ".config";

/// What neither the preparation nor a module reads, as patterns of tar below the source's root. All `Kconfig` files have
/// to stay.
const EXCLUDED: &[&str] = &[
    "Documentation/*/*",
    "arch/[!x]*/*.[chS]",
    "arch/[!x]*/*.dts*",
    "arch/xtensa/*.[chS]",
    "drivers/*.[cS]",
    "drivers/accel/*.h",
    "drivers/gpu/*.h",
    "drivers/infiniband/*.h",
    "drivers/media/*.h",
    "drivers/net/*.h",
    "drivers/scsi/*.h",
    "drivers/staging/*.h",
    "fs/[!o]*.c",
    "fs/o[!v]*.c",
    "net/*.c",
    "sound/*.[ch]",
    "tools/perf/*",
    "tools/testing/*",
];

/// A prepared tree.
pub(crate) struct PreparedTree {
    folder: PathBuf,
    root: BuildRoot,
    pins: Pins,
    jobs: usize,
}

impl PreparedTree {
    /// What the tree is made of.
    pub(crate) fn key(workshop: &Workshop) -> Key {
        KeyBuilder::new(STEP, VERSION)
            .value(&workshop.pins.kernel)
            .value(&EXCLUDED)
            .key(&BuildRoot::key(workshop))
            .finish()
    }

    /// Finds or makes it, with the build root.
    pub(crate) fn get(workshop: &Workshop) -> Result<Self> {
        let folder = workshop.step(STEP, &Self::key(workshop), |work| make(workshop, work))?;
        Ok(Self {
            folder,
            root: BuildRoot::get(workshop)?,
            pins: workshop.pins.clone(),
            jobs: workshop.jobs(),
        })
    }

    /// The kernel's source, as much of it as modules need.
    pub(crate) fn source(&self) -> PathBuf {
        self.folder.join(SOURCE)
    }

    /// A `make` for the modules of `folder` in `repository`, which writes to `output` only.
    pub(crate) fn make_modules(
        &self,
        repository: &Path,
        folder: &str,
        output: &Path,
        variables: &[&str],
    ) -> Result<Command> {
        const REPOSITORY_INSIDE: &str = "/build/repository";
        const OUTPUT_INSIDE: &str = "/build/output";
        let mut arguments = arguments(&self.pins, self.jobs);
        arguments.push(format!("M={REPOSITORY_INSIDE}/{folder}"));
        arguments.push(format!("MO={OUTPUT_INSIDE}"));
        arguments.extend(variables.iter().map(|&variable| variable.to_owned()));
        arguments.push("modules".to_owned());
        let sandbox = (self.root.sandbox()?)
            .read(&self.folder.join(SOURCE), SOURCE_INSIDE)
            .read(&self.folder.join(TREE), TREE_INSIDE)
            .read(repository, REPOSITORY_INSIDE)
            .write(output, OUTPUT_INSIDE);
        Ok(sandbox.program("make", arguments).into_command())
    }

    /// The same for modules of the kernel itself, which stand in `folder` of its source.
    pub(crate) fn make_own_modules(&self, folder: &str, output: &Path) -> Result<Command> {
        self.make_modules(&self.folder.join(SOURCE), folder, output, &[])
    }
}

/// What every `make` of the tree has in common, as the stock kernel was built.
fn arguments(pins: &Pins, jobs: usize) -> Vec<String> {
    vec![
        "-C".to_owned(),
        SOURCE_INSIDE.to_owned(),
        format!("O={TREE_INSIDE}"),
        format!("-j{jobs}"),
        "ARCH=x86".to_owned(),
        "HOSTCC=gcc".to_owned(),
        format!("CC={}", pins.build_root.compiler),
        format!("LOCALVERSION={}", pins.kernel.local_version()),
    ]
}

fn make(workshop: &Workshop, work: &Path) -> Result<Vec<PathBuf>> {
    let pin = &workshop.pins.kernel;
    let headers_package = format!("linux-headers-{}", pin.release);
    let requests = [&headers_package, &pin.source_package]
        .map(|package| Request::pinned(package, &pin.package_version));
    let download = workshop.fetch("kernel-source", &requests, Closure::Alone)?;
    let source_package = download.file(&pin.source_package)?;
    let tree = work.join(TREE);
    fs::create_dir(&tree).map_err(SetupError::io("create", &tree))?;
    // The source is unpacked on one processor while the build root is made on the others.
    let root = std::thread::scope(|scope| {
        let source = scope.spawn(|| unpack_source(workshop, source_package, &work.join(SOURCE)));
        let root = BuildRoot::get(workshop);
        (source.join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        root
    })?;
    take_from_headers(workshop, download.file(&headers_package)?, work)?;
    let stock_config = read(&tree.join(CONFIG))?;

    workshop.go_on()?;
    let step = workshop.progress.step("prepare the kernel tree", None);
    let make = |target: &str| {
        let mut arguments = arguments(&workshop.pins, workshop.jobs());
        arguments.push(target.to_owned());
        let sandbox = (root.sandbox()?)
            .read(&work.join(SOURCE), SOURCE_INSIDE)
            .write(&tree, TREE_INSIDE);
        let mut command = sandbox.program("make", arguments).into_command();
        let what = format!("make {target} of the kernel tree");
        process::watch(&what, &mut command, |line| step.detail(line))
    };
    make("olddefconfig")?;
    check_compiler(&tree.join(CONFIG), &stock_config, || make("rustavailable"))?;
    make("modules_prepare")?;
    check_release(&tree, &pin.release)?;
    let count = check_symbols(&tree, &pin.release)?;
    download.discard()?;
    step.finish(&format!(
        "{count} Rust symbols are those of the stock kernel"
    ));
    Ok([
        CONFIG,
        SYMVERS,
        "include/config/kernel.release",
        "include/generated/autoconf.h",
        "rust/libkernel.rmeta",
        "rust/libmacros.so",
        "scripts/mod/modpost",
    ]
    .map(|file| Path::new(TREE).join(file))
    .to_vec())
}

fn unpack_source(workshop: &Workshop, package: &Path, folder: &Path) -> Result<()> {
    let name = &workshop.pins.kernel.source_package;
    let step = workshop.progress.step("unpack the kernel source", None);
    fs::create_dir(folder).map_err(SetupError::io("create", folder))?;
    let mut reader = Command::new("dpkg-deb");
    reader.arg("--fsys-tarfile").arg(package);
    let mut archive = Command::new("tar");
    archive.args(["--extract", "--to-stdout"]);
    archive.arg(format!("./usr/src/{name}.tar.xz"));
    let mut expander = Command::new("xz");
    expander.args(["--decompress", "--stdout"]);
    let mut writer = Command::new("tar");
    writer.arg("--extract").arg("--directory").arg(folder);
    writer.args(["--strip-components=1", "--no-same-owner"]);
    for pattern in EXCLUDED {
        writer.arg(format!("--exclude={name}/{pattern}"));
    }
    let mut commands = [reader, archive, expander, writer];
    process::pipeline("unpack the kernel source", &mut commands)?;
    step.finish("unpacked");
    Ok(())
}

/// Debian's configuration and the list of the stock kernel's symbols.
fn take_from_headers(workshop: &Workshop, package: &Path, work: &Path) -> Result<()> {
    let unpacked = work.join("headers");
    let step = workshop.progress.step("unpack the kernel headers", Some(1));
    unpack(&[package.to_owned()], &unpacked, &[], &step)?;
    let folder = format!("usr/src/linux-headers-{}", workshop.pins.kernel.release);
    for file in [CONFIG, SYMVERS] {
        let from = unpacked.join(&folder).join(file);
        fs::rename(&from, work.join(TREE).join(file)).map_err(SetupError::io("take", &from))?;
    }
    fs::remove_dir_all(&unpacked).map_err(SetupError::io("remove", &unpacked))?;
    step.finish("configuration and symbols");
    Ok(())
}

/// A module carries the release of the tree that it was built against, and the kernel refuses any other.
fn check_release(tree: &Path, release: &str) -> Result<()> {
    let path = tree.join("include/config/kernel.release");
    let found = read(&path)?;
    if found.trim() == release {
        return Ok(());
    }
    Err(SetupError::invalid(
        &path,
        format!(
            "expected the release {release} of the pins, found {}; [kernel] of the pins names a source package of another \
             kernel",
            found.trim()
        ),
    ))
}

/// Before the long build: the configuration must still have Rust, by the compiler of the stock kernel.
fn check_compiler(
    config: &Path,
    stock_config: &str,
    why_no_rust: impl FnOnce() -> Result<String>,
) -> Result<()> {
    let ours = read(config)?;
    if config_value(&ours, "CONFIG_RUST") != Some("y") {
        // The kernel's own check knows what is wrong with the tools.
        why_no_rust()?;
    }
    for option in ["CONFIG_RUST", "CONFIG_RUSTC_VERSION_TEXT"] {
        let expected = config_value(stock_config, option).unwrap_or("nothing");
        let found = config_value(&ours, option).unwrap_or("nothing");
        if found != expected {
            return Err(SetupError::invalid(
                config,
                format!(
                    "{option}: the stock kernel has \"{expected}\" and the build root gives \"{found}\"; check \
                     [build_root] of the pins"
                ),
            ));
        }
    }
    Ok(())
}

fn check_symbols(tree: &Path, release: &str) -> Result<usize> {
    let stock = stock_symbols(&read(&tree.join(SYMVERS))?);
    let rust = tree.join("rust");
    let mut rebuilt = BTreeSet::new();
    for entry in fs::read_dir(&rust).map_err(SetupError::io("list", &rust))? {
        let entry = entry.map_err(SetupError::io("list", &rust))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("exports_") && name.ends_with("_generated.h") {
            rebuilt.extend(rebuilt_symbols(&read(&entry.path())?));
        }
    }
    SymbolDifference::check(&stock, &rebuilt).map_err(|difference| SetupError::Symbols {
        release: release.to_owned(),
        difference,
    })
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(SetupError::io("read", path))
}
