// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The tree that modules for the stock kernel are built against: Debian's source and configuration, prepared by the
//! compilers that built the stock kernel, with the stock kernel's list of symbols.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::build_tree::{BuildTree, CONFIG, RELEASE, RUST_METADATA, SYMVERS, check_release, read};
use super::symbols::{SymbolDifference, rebuilt_symbols, stock_symbols};
use super::{config_value, source};
use crate::cache::{Key, KeyBuilder};
use crate::packages::{Closure, Request, unpack};
use crate::sysroot::BuildRoot;
use crate::workshop::Workshop;
use crate::{Result, SetupError};

/// The name of the step.
pub(crate) const STEP: &str = "kernel-tree";
const VERSION: u32 = 2;

/// What the tree is made of.
pub(crate) fn key(workshop: &Workshop) -> Key {
    KeyBuilder::new(STEP, VERSION)
        .value(&workshop.pins.kernel)
        .key(&source::key(workshop))
        .key(&BuildRoot::key(workshop))
        .finish()
}

/// Finds or makes it, with the build root.
pub(crate) fn tree(workshop: &Workshop) -> Result<BuildTree> {
    let folder = workshop.step(STEP, &key(workshop), |work| make(workshop, work))?;
    build_tree(workshop, folder)
}

fn build_tree(workshop: &Workshop, folder: PathBuf) -> Result<BuildTree> {
    let pins = &workshop.pins;
    let variables = vec![
        "HOSTCC=gcc".to_owned(),
        format!("CC={}", pins.build_root.compiler),
        format!("LOCALVERSION={}", pins.kernel.local_version()),
    ];
    BuildTree::new(workshop, folder, variables)
}

fn make(workshop: &Workshop, work: &Path) -> Result<Vec<PathBuf>> {
    let pin = &workshop.pins.kernel;
    let headers_package = format!("linux-headers-{}", pin.release);
    let requests = [Request::pinned(&headers_package, &pin.package_version)];
    let download = workshop.fetch("kernel-headers", &requests, Closure::Alone)?;
    take_from_headers(workshop, download.file(&headers_package)?, work)?;
    let stock_config = read(&work.join(CONFIG))?;
    let tree = build_tree(workshop, work.to_owned())?;

    workshop.go_on()?;
    let step = workshop.progress.step("prepare the kernel tree", None);
    let make = |target: &str| tree.make(&[target], |line| step.detail(line));
    make("olddefconfig")?;
    check_compiler(&work.join(CONFIG), &stock_config, || make("rustavailable"))?;
    make("modules_prepare")?;
    check_release(work, &pin.release)?;
    let count = check_symbols(work, &pin.release)?;
    download.discard()?;
    step.finish(&format!(
        "{count} Rust symbols are those of the stock kernel"
    ));
    Ok([
        CONFIG,
        SYMVERS,
        RELEASE,
        "include/generated/autoconf.h",
        RUST_METADATA,
        "rust/libmacros.so",
        "scripts/mod/modpost",
    ]
    .map(PathBuf::from)
    .to_vec())
}

/// Debian's configuration and the list of the stock kernel's symbols.
fn take_from_headers(workshop: &Workshop, package: &Path, work: &Path) -> Result<()> {
    let unpacked = work.join("headers");
    let step = workshop.progress.step("unpack the kernel headers", Some(1));
    unpack(&[package.to_owned()], &unpacked, &[], &step)?;
    let folder = format!("usr/src/linux-headers-{}", workshop.pins.kernel.release);
    for file in [CONFIG, SYMVERS] {
        let from = unpacked.join(&folder).join(file);
        fs::rename(&from, work.join(file)).map_err(SetupError::io("take", &from))?;
    }
    fs::remove_dir_all(&unpacked).map_err(SetupError::io("remove", &unpacked))?;
    step.finish("configuration and symbols");
    Ok(())
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
