// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The debug kernel: the stock kernel's source with a small configuration of its own and everything that finds bugs. And the
//! fixed kernel, which is the same with the project's patches.

use std::fs;
use std::path::{Path, PathBuf};

use super::build_tree::{
    BuildTree, CONFIG, IMAGE, RELEASE, RUST_METADATA, SYMVERS, check_release, read,
};
use super::{fixes, fragment, source};
use crate::cache::{Key, KeyBuilder};
use crate::environment::Kernel;
use crate::sysroot::BuildRoot;
use crate::workshop::Workshop;
use crate::{Result, SetupError};

/// Whether the kernel has its faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DebugKernel {
    /// As the stock kernel has them.
    Plain,
    /// With the patches of `kernel/fixes`.
    Fixed,
}

const VERSION: u32 = 1;
/// The configuration, below the project's root.
const FRAGMENT: &str = "qemu-config/kernel/debug.config";

/// Folders whose object files belong to programs that building a module runs.
const PROGRAMS: &[&str] = &["scripts", "tools"];
/// The endings of files that neither a boot nor a module needs. They are most of the tree.
const LEFTOVERS: &[&str] = &["a", "cmd", "o"];

impl DebugKernel {
    /// The name of the step.
    pub(crate) const fn step(self) -> &'static str {
        match self {
            Self::Plain => "debug-kernel",
            Self::Fixed => "fixed-kernel",
        }
    }

    /// What tells its modules from those of the stock kernel.
    const fn local_version(self) -> &'static str {
        match self {
            Self::Plain => "-hmm-debug",
            Self::Fixed => "-hmm-fixed",
        }
    }

    /// What `uname -r` says in the guest.
    pub(super) fn release(self, workshop: &Workshop) -> String {
        format!("{}{}", workshop.pins.kernel.version(), self.local_version())
    }

    /// Finds or makes the source.
    pub(super) fn source(self, workshop: &Workshop) -> Result<PathBuf> {
        match self {
            Self::Plain => source::source(workshop),
            Self::Fixed => fixes::source(workshop),
        }
    }

    /// What the source is made of.
    pub(super) fn source_key(self, workshop: &Workshop) -> Result<Key> {
        match self {
            Self::Plain => Ok(source::key(workshop)),
            Self::Fixed => fixes::key(workshop),
        }
    }

    /// What the kernel is made of.
    pub(crate) fn key(self, workshop: &Workshop) -> Result<Key> {
        let key = KeyBuilder::new(self.step(), VERSION)
            .text(&workshop.pins.build_root.llvm)
            .key(&self.source_key(workshop)?)
            .key(&BuildRoot::key(workshop));
        Ok((key.file(FRAGMENT, &workshop.repository.join(FRAGMENT))?).finish())
    }

    /// Finds or builds the image.
    pub(super) fn kernel(self, workshop: &Workshop) -> Result<Kernel> {
        Ok(Kernel {
            image: self.folder(workshop)?.join(IMAGE),
            release: self.release(workshop),
            debug: true,
        })
    }

    /// Finds or builds the tree, for modules.
    pub(super) fn tree(self, workshop: &Workshop) -> Result<BuildTree> {
        self.build_tree(workshop, self.folder(workshop)?)
    }

    fn folder(self, workshop: &Workshop) -> Result<PathBuf> {
        workshop.step(self.step(), &self.key(workshop)?, |work| {
            self.make(workshop, work)
        })
    }

    fn build_tree(self, workshop: &Workshop, folder: PathBuf) -> Result<BuildTree> {
        let variables = vec![
            format!("LLVM=-{}", workshop.pins.build_root.llvm),
            format!("LOCALVERSION={}", self.local_version()),
        ];
        BuildTree::of_source(workshop, folder, variables, || self.source(workshop))
    }

    fn make(self, workshop: &Workshop, work: &Path) -> Result<Vec<PathBuf>> {
        let tree = self.build_tree(workshop, work.to_owned())?;
        workshop.go_on()?;
        let step = workshop.progress.step("configure the debug kernel", None);
        configure(&workshop.repository.join(FRAGMENT), work, |target| {
            tree.make(&[target], |line| step.detail(line)).map(drop)
        })?;
        step.finish("as the fragment has it");

        workshop.go_on()?;
        let what = match self {
            Self::Plain => "build the debug kernel (23 minutes of one processor)",
            Self::Fixed => "build the fixed kernel (23 minutes of one processor)",
        };
        let step = workshop.progress.step(what, None);
        tree.make(&["bzImage", "modules"], |line| step.detail(line))?;
        check_release(work, &self.release(workshop))?;
        remove_leftovers(work, work)?;
        step.finish("built");
        Ok([
            CONFIG,
            SYMVERS,
            RELEASE,
            IMAGE,
            "include/generated/autoconf.h",
            RUST_METADATA,
            "rust/libmacros.so",
            "scripts/mod/modpost",
        ]
        .map(PathBuf::from)
        .to_vec())
    }
}

/// The smallest configuration there is, and what the fragment adds to it.
fn configure(fragment_path: &Path, work: &Path, make: impl Fn(&str) -> Result<()>) -> Result<()> {
    let fragment = read(fragment_path)?;
    if fragment::is_empty(&fragment) {
        return Err(SetupError::invalid(
            fragment_path,
            "expected lines of the form CONFIG_NAME=value, found none",
        ));
    }
    make("tinyconfig")?;
    let path = work.join(CONFIG);
    let config = format!("{}\n{fragment}", read(&path)?);
    fs::write(&path, config).map_err(SetupError::io("write", &path))?;
    make("olddefconfig")?;
    let differences = fragment::differences(&fragment, &read(&path)?);
    if differences.is_empty() {
        return Ok(());
    }
    Err(SetupError::invalid(
        fragment_path,
        format!(
            "the kernel's configuration is not as this file wants it: {}. Something that these options depend on is off, \
             or an option has another name in this kernel: see its Kconfig file",
            differences.join("; ")
        ),
    ))
}

fn remove_leftovers(tree: &Path, folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(SetupError::io("list", folder))? {
        let entry = entry.map_err(SetupError::io("list", folder))?;
        let path = entry.path();
        let kind = (entry.file_type()).map_err(SetupError::io("examine", &path))?;
        if kind.is_dir() {
            if !PROGRAMS.iter().any(|program| path == tree.join(program)) {
                remove_leftovers(tree, &path)?;
            }
            continue;
        }
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_leftover = (name.rsplit_once('.'))
            .is_some_and(|(_, ending)| LEFTOVERS.contains(&ending))
            || name.starts_with("vmlinux");
        if kind.is_file() && is_leftover {
            fs::remove_file(&path).map_err(SetupError::io("remove", &path))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fragment_that_does_not_come_out_is_an_error_that_names_the_option() {
        let folder = tempfile::tempdir().unwrap();
        let fragment = folder.path().join("debug.config");
        let config = folder.path().join(CONFIG);
        fs::write(&fragment, "CONFIG_KASAN=y\nCONFIG_KSM=y\n").unwrap();
        let make = |drops: &'static str| {
            let config = config.clone();
            move |target: &str| {
                let text = match target {
                    "tinyconfig" => "CONFIG_TINY=y\n".to_owned(),
                    _ => fs::read_to_string(&config).unwrap().replace(drops, ""),
                };
                fs::write(&config, text).unwrap();
                Ok(())
            }
        };
        configure(&fragment, folder.path(), make("nothing")).unwrap();
        let error = configure(&fragment, folder.path(), make("CONFIG_KASAN=y")).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("CONFIG_KASAN is to be y") && !text.contains("KSM"),
            "{text}"
        );
        fs::write(&fragment, "# empty\n").unwrap();
        assert!(configure(&fragment, folder.path(), make("nothing")).is_err());
    }

    #[test]
    fn what_modules_need_stays() {
        let tree = tempfile::tempdir().unwrap();
        let kept = [
            "rust/libkernel.rmeta",
            "scripts/mod/modpost.o",
            "Module.symvers",
        ];
        let removed = [
            "mm/migrate.o",
            "mm/.migrate.o.cmd",
            "mm/built-in.a",
            "vmlinux",
            "vmlinux.o",
        ];
        for file in kept.iter().chain(&removed) {
            let path = tree.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        remove_leftovers(tree.path(), tree.path()).unwrap();
        assert!(kept.iter().all(|file| tree.path().join(file).exists()));
        assert!(removed.iter().all(|file| !tree.path().join(file).exists()));
    }
}
