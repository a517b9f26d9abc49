// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A folder that a kernel is configured or built in, by the compilers of the build root from the one source.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Modules, source};
use crate::environment::cause;
use crate::sysroot::BuildRoot;
use crate::workshop::Workshop;
use crate::{Result, SetupError, process};

/// Where the two halves stand inside the build root. The build writes these paths into its files, so that they are the
/// same wherever the cache is.
const SOURCE_INSIDE: &str = "/build/source";
const TREE_INSIDE: &str = "/build/tree";

/// The configuration.
pub(super) const CONFIG: &str = ".config";
/// What `uname -r` says.
pub(super) const RELEASE: &str = "include/config/kernel.release";
/// The symbols that modules may use.
pub(super) const SYMVERS: &str = "Module.symvers";
/// What modules in Rust are compiled against.
pub(super) const RUST_METADATA: &str = "rust/libkernel.rmeta";
/// What a machine boots.
pub(super) const IMAGE: &str = "arch/x86/boot/bzImage";

/// A tree, its source, and what every `make` in it has in common.
pub(crate) struct BuildTree {
    source: PathBuf,
    tree: PathBuf,
    root: BuildRoot,
    arguments: Vec<String>,
}

impl BuildTree {
    /// A tree in `tree` whose compilers `variables` name. The source and the build root are made first.
    pub(super) fn new(workshop: &Workshop, tree: PathBuf, variables: Vec<String>) -> Result<Self> {
        Self::of_source(workshop, tree, variables, || source::source(workshop))
    }

    /// The same of another source, which `source` makes.
    pub(super) fn of_source(
        workshop: &Workshop,
        tree: PathBuf,
        variables: Vec<String>,
        source: impl FnOnce() -> Result<PathBuf> + Send,
    ) -> Result<Self> {
        // The source is unpacked on one processor while the build root is made on the others.
        let (source, root) = std::thread::scope(|scope| {
            let source = scope.spawn(|| workshop.line(source));
            let root = workshop.line(|| BuildRoot::get(workshop));
            let source = source
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            (source, root)
        });
        let (source, root) = match (source, root) {
            (Ok(source), Ok(root)) => (source, root),
            (source, root) => {
                let errors = [source.err(), root.err()];
                return Err(cause(errors.into_iter().flatten()));
            }
        };
        let mut arguments = vec![
            "-C".to_owned(),
            SOURCE_INSIDE.to_owned(),
            format!("O={TREE_INSIDE}"),
            format!("-j{}", workshop.jobs()),
            "ARCH=x86".to_owned(),
        ];
        arguments.extend(variables);
        Ok(Self {
            source,
            tree,
            root,
            arguments,
        })
    }

    /// Makes targets in the tree itself.
    pub(super) fn make(&self, targets: &[&str], on_line: impl FnMut(&str)) -> Result<String> {
        let arguments = (self.arguments.iter().map(String::as_str)).chain(targets.iter().copied());
        let sandbox = (self.root.sandbox()?)
            .read(&self.source, SOURCE_INSIDE)
            .write(&self.tree, TREE_INSIDE);
        let mut command = sandbox.program("make", arguments).into_command();
        let what = format!("make {} of the kernel", targets.join(" "));
        process::watch(&what, &mut command, on_line)
    }

    /// A `make` for modules.
    pub(super) fn make_modules(&self, modules: Modules<'_>) -> Result<Command> {
        const REPOSITORY_INSIDE: &str = "/build/repository";
        const OUTPUT_INSIDE: &str = "/build/output";
        let of_modules = modules.arguments(REPOSITORY_INSIDE.as_ref(), OUTPUT_INSIDE.as_ref());
        let arguments = (self.arguments.iter().map(OsString::from)).chain(of_modules);
        let sandbox = (self.root.sandbox()?)
            .read(&self.source, SOURCE_INSIDE)
            .read(&self.tree, TREE_INSIDE)
            .read(modules.repository, REPOSITORY_INSIDE)
            .write(modules.output, OUTPUT_INSIDE);
        Ok(sandbox.program("make", arguments).into_command())
    }

    /// The same for modules of the kernel itself, which stand in `folder` of its source.
    pub(super) fn make_own_modules(&self, folder: &str, output: &Path) -> Result<Command> {
        self.make_modules(Modules {
            repository: &self.source,
            folder,
            output,
            variables: &[],
        })
    }
}

/// A module carries the release of the tree that it was built against, and the kernel refuses any other.
pub(super) fn check_release(tree: &Path, release: &str) -> Result<()> {
    let path = tree.join(RELEASE);
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

/// A file of the tree as text.
pub(super) fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(SetupError::io("read", path))
}
