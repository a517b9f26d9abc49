// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A kernel tree that the user has built: its own image, its own compilers. [`advice`] says what to do about one that does not fit.

mod advice;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::build_tree::{CONFIG, IMAGE, RELEASE, RUST_METADATA, SYMVERS, read};
use super::{Modules, config_value};
use crate::cache::{Key, KeyBuilder};
use crate::environment::Kernel;
use crate::host::find_program;
use crate::sysroot::BuildRoot;
use crate::workshop::Workshop;
use crate::{Result, SetupError, process};

/// What the driver needs of the kernel.
const REQUIRED: &[&str] = &[
    "CONFIG_DEVICE_PRIVATE",
    "CONFIG_HMM_MIRROR",
    "CONFIG_MODULES",
    "CONFIG_RUST",
    "CONFIG_VIRTIO_CONSOLE",
    "CONFIG_VIRTIO_PCI",
];

/// What makes a kernel several times slower.
const SLOW: &[&str] = &["CONFIG_KASAN", "CONFIG_PROVE_LOCKING"];

/// A built tree that has passed the checks of [`UsersTree::open`].
pub(crate) struct UsersTree {
    folder: PathBuf,
    config: String,
    release: String,
}

impl UsersTree {
    /// Checks that the tree is built and has what the driver needs.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        let folder = fs::canonicalize(folder).map_err(SetupError::io("find", folder))?;
        // The configuration first: without Rust in it, the other files cannot be there.
        require(&folder, CONFIG)?;
        let config = read(&folder.join(CONFIG))?;
        let missing = missing_options(&config);
        if !missing.is_empty() {
            return Err(SetupError::invalid(
                &folder.join(CONFIG),
                advice::options(&missing),
            ));
        }
        for file in [RELEASE, IMAGE, SYMVERS, RUST_METADATA] {
            require(&folder, file)?;
        }
        let release = read(&folder.join(RELEASE))?.trim().to_owned();
        Ok(Self {
            folder,
            config,
            release,
        })
    }

    /// The tree as it is now: a rebuilt kernel is another one.
    pub(crate) fn key(&self) -> Result<Key> {
        let mut key = KeyBuilder::new("users-tree", 1).text(&self.folder.to_string_lossy());
        for file in [CONFIG, RELEASE, SYMVERS, RUST_METADATA] {
            key = key.file(file, &self.folder.join(file))?;
        }
        Ok(key.finish())
    }

    /// The source, which is the tree itself unless it was built with `O=`.
    pub(crate) fn source(&self) -> PathBuf {
        fs::canonicalize(self.folder.join("source")).unwrap_or_else(|_| self.folder.clone())
    }

    /// What `uname -r` says in the guest.
    pub(crate) fn release(&self) -> &str {
        &self.release
    }

    /// What the guest boots.
    pub(crate) fn kernel(&self) -> Kernel {
        Kernel {
            image: self.folder.join(IMAGE),
            release: self.release.clone(),
            debug: SLOW
                .iter()
                .any(|option| config_value(&self.config, option) == Some("y")),
        }
    }

    /// Whether it has kprobes.
    pub(crate) fn has_probes(&self) -> bool {
        config_value(&self.config, "CONFIG_KPROBES") == Some("y")
    }

    /// What the guest uses of the kernel's, as far as the tree has it as modules that are built.
    pub(crate) fn helper_modules(&self) -> Vec<PathBuf> {
        [
            ("CONFIG_OVERLAY_FS", "fs/overlayfs/overlay.ko"),
            ("CONFIG_BLK_DEV_LOOP", "drivers/block/loop.ko"),
        ]
        .into_iter()
        .filter(|(option, _)| config_value(&self.config, option) == Some("m"))
        .map(|(_, module)| self.folder.join(module))
        .filter(|module| module.is_file())
        .collect()
    }

    /// A `make` for modules, with the compilers that built the tree: the host's, or those of the build root.
    pub(crate) fn make_modules(
        &self,
        workshop: &Workshop,
        modules: Modules<'_>,
    ) -> Result<Command> {
        let expected = config_value(&self.config, "CONFIG_RUSTC_VERSION_TEXT").unwrap_or_default();
        let on_host = self.host_rust();
        if on_host.as_deref() == Some(expected) {
            self.require_compiler("PATH", |name| find_program(name).is_some())?;
            let mut command = Command::new("make");
            own_environment(&mut command);
            command.args(self.arguments(workshop, modules, |name| find_program(name).is_some()));
            return Ok(command);
        }
        let root = BuildRoot::get(workshop)?;
        let mut command = (root.sandbox()?)
            .program("rustc", ["--version"])
            .into_command();
        let in_root = process::output("ask the build root's Rust compiler", &mut command)?;
        if in_root.trim() == expected {
            return self.make_in(&root, workshop, modules);
        }
        Err(SetupError::invalid(
            &self.folder,
            format!(
                "the tree was built with \"{expected}\"; rustc in that folder is \"{}\" and the build root has \"{}\". \
                 Make the same compiler the first in PATH, or build the tree again with the present one",
                on_host.as_deref().unwrap_or("missing"),
                in_root.trim()
            ),
        ))
    }

    /// Everything stands at the same place inside as outside, because a built tree holds absolute paths.
    fn make_in(
        &self,
        root: &BuildRoot,
        workshop: &Workshop,
        modules: Modules<'_>,
    ) -> Result<Command> {
        self.require_compiler("the build root", |name| root.has(name))?;
        let mut sandbox = root.sandbox()?.read(&self.folder, &self.folder);
        // A tree that was built with O= names its source by a link.
        if let Ok(source) = fs::canonicalize(self.folder.join("source")) {
            sandbox = sandbox.read(&source, &source);
        }
        let sandbox = (sandbox.read(modules.repository, modules.repository))
            .write(modules.output, modules.output);
        let arguments = self.arguments(workshop, modules, |name| root.has(name));
        Ok(sandbox.program("make", arguments).into_command())
    }

    /// The C compiler that built the tree has to be there, too.
    fn require_compiler(&self, place: &str, has_program: impl Fn(&str) -> bool) -> Result<()> {
        let Some(compiler) = c_compiler(&self.config, &has_program) else {
            return Ok(());
        };
        if has_program(&compiler) {
            return Ok(());
        }
        let built_by = config_value(&self.config, "CONFIG_CC_VERSION_TEXT").unwrap_or_default();
        Err(SetupError::invalid(
            &self.folder,
            advice::compiler(built_by, &compiler, place),
        ))
    }

    /// Says, of errors of the compiler, what a tree of another version has to do with them.
    pub(crate) fn explain(&self, error: SetupError, written_for: &str) -> SetupError {
        match error {
            SetupError::Driver { what, output } => SetupError::Driver {
                what,
                output: advice::interfaces(&output, &self.release, written_for),
            },
            other => other,
        }
    }

    fn arguments(
        &self,
        workshop: &Workshop,
        modules: Modules<'_>,
        has_program: impl Fn(&str) -> bool,
    ) -> Vec<OsString> {
        let mut arguments = vec![OsString::from("-C"), self.folder.clone().into()];
        arguments.push(format!("-j{}", workshop.jobs()).into());
        arguments.extend(compiler_variable(&self.config, has_program).map(OsString::from));
        arguments.extend(modules.arguments(modules.repository, modules.output));
        arguments
    }

    /// What rustc says of itself in the tree's folder, where a toolchain file may choose it.
    fn host_rust(&self) -> Option<String> {
        let mut command = Command::new("rustc");
        own_environment(&mut command);
        command.arg("--version").current_dir(&self.folder);
        let text = process::output("ask the Rust compiler for its version", &mut command).ok()?;
        Some(text.trim().to_owned())
    }
}

/// `cargo` tells the programs that it starts which toolchain to use; a kernel build is to use the user's.
fn own_environment(command: &mut Command) {
    for name in [
        "CARGO",
        "RUSTC",
        "RUSTFLAGS",
        "RUSTUP_TOOLCHAIN",
        "MAKEFLAGS",
        "MFLAGS",
    ] {
        command.env_remove(name);
    }
}

/// What every built tree has.
fn require(folder: &Path, file: &str) -> Result<()> {
    let path = folder.join(file);
    if path.is_file() {
        return Ok(());
    }
    Err(SetupError::invalid(
        &path,
        "expected a kernel tree that is built (make, with CONFIG_RUST=y; the folder of O= if you used it), \
         and this file is missing",
    ))
}

fn missing_options(config: &str) -> Vec<&'static str> {
    (REQUIRED.iter().copied())
        .filter(|option| config_value(config, option) != Some("y"))
        .collect()
}

/// The variable that chooses the compiler which the configuration names.
fn compiler_variable(config: &str, has_program: impl Fn(&str) -> bool) -> Option<String> {
    let text = config_value(config, "CONFIG_CC_VERSION_TEXT").unwrap_or_default();
    if let Some((_, version)) = text.split_once("clang version ") {
        let major = version.split('.').next().unwrap_or_default();
        return Some(if has_program(&format!("clang-{major}")) {
            format!("LLVM=-{major}")
        } else {
            "LLVM=1".to_owned()
        });
    }
    let compiler = text.split_whitespace().next()?;
    Some(format!("CC={compiler}"))
}

/// The C compiler that the variable chooses.
fn c_compiler(config: &str, has_program: impl Fn(&str) -> bool) -> Option<String> {
    let variable = compiler_variable(config, has_program)?;
    let (name, value) = variable.split_once('=')?;
    Some(match (name, value.strip_prefix('-')) {
        ("LLVM", Some(version)) => format!("clang-{version}"),
        ("LLVM", None) => "clang".to_owned(),
        _ => value.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compiler_is_the_one_of_the_configuration() {
        let gcc = "CONFIG_CC_VERSION_TEXT=\"x86_64-linux-gnu-gcc-14 (Debian 14.2.0-19) 14.2.0\"\n";
        let choose =
            |config, versioned| compiler_variable(config, |name| versioned && name == "clang-19");
        assert_eq!(
            choose(gcc, true).as_deref(),
            Some("CC=x86_64-linux-gnu-gcc-14")
        );
        let clang = "CONFIG_CC_VERSION_TEXT=\"Debian clang version 19.1.7 (3+b1)\"\n";
        assert_eq!(choose(clang, true).as_deref(), Some("LLVM=-19"));
        assert_eq!(choose(clang, false).as_deref(), Some("LLVM=1"));
        assert_eq!(choose("", true), None);
    }

    #[test]
    fn options_that_are_off_or_modules_are_missing() {
        let config: String = (REQUIRED.iter())
            .map(|option| format!("{option}=y\n"))
            .collect();
        assert!(missing_options(&config).is_empty());
        let config = config.replace("CONFIG_RUST=y", "# CONFIG_RUST is not set");
        let config = config.replace("CONFIG_VIRTIO_PCI=y", "CONFIG_VIRTIO_PCI=m");
        assert_eq!(
            missing_options(&config),
            ["CONFIG_RUST", "CONFIG_VIRTIO_PCI"]
        );
    }

    /// A tree that is built as far as its files say.
    fn tree(config: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in [RELEASE, IMAGE, SYMVERS, RUST_METADATA] {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "7.4.0-rc1\n").unwrap();
        }
        fs::write(folder.path().join(CONFIG), config).unwrap();
        folder
    }

    fn complete() -> String {
        (REQUIRED.iter())
            .map(|option| format!("{option}=y\n"))
            .collect()
    }

    fn refusal(folder: &tempfile::TempDir) -> String {
        UsersTree::open(folder.path()).err().unwrap().to_string()
    }

    #[test]
    fn a_tree_without_rust_is_told_how_to_get_it() {
        let folder = tree(&complete().replace("CONFIG_RUST=y", "# CONFIG_RUST is not set"));
        // Its build has made no metadata of crates, which is not what is wrong.
        fs::remove_file(folder.path().join(RUST_METADATA)).unwrap();
        let text = refusal(&folder);
        assert!(
            text.contains("scripts/config --enable RUST") && text.contains("make rustavailable"),
            "{text}"
        );
        let folder = tree(&complete().replace("CONFIG_VIRTIO_PCI=y", ""));
        let text = refusal(&folder);
        assert!(
            text.contains("--enable VIRTIO_PCI") && !text.contains("rustavailable"),
            "{text}"
        );
    }

    #[test]
    fn a_tree_whose_compiler_is_gone_names_it() {
        let config = complete() + "CONFIG_CC_VERSION_TEXT=\"gcc-99 (Debian 99.1) 99.1.0\"\n";
        let tree = UsersTree::open(tree(&config).path()).unwrap();
        assert!(
            tree.require_compiler("PATH", |name| name == "gcc-99")
                .is_ok()
        );
        let error = tree.require_compiler("PATH", |_| false).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("gcc-99 (Debian 99.1) 99.1.0") && text.contains("PATH"),
            "{text}"
        );
        let clang = "CONFIG_CC_VERSION_TEXT=\"clang version 19.1.7\"\n";
        assert_eq!(c_compiler(clang, |_| true).as_deref(), Some("clang-19"));
        assert_eq!(c_compiler(clang, |_| false).as_deref(), Some("clang"));
    }

    #[test]
    fn errors_of_a_tree_of_another_version_name_what_differs() {
        let tree = UsersTree::open(tree(&complete()).path()).unwrap();
        let driver = |output: &str| SetupError::Driver {
            what: "build the driver".to_owned(),
            output: output.to_owned(),
        };
        let output = "error[E0560]: struct `migrate_vma` has no field named `fault_page`";
        let text = tree
            .explain(driver(output), "7.3.4+deb13-amd64")
            .to_string();
        assert!(
            text.contains(output) && text.contains("7.4.0-rc1") && text.contains("Linux 7.3.4"),
            "{text}"
        );
    }

    #[test]
    fn a_tree_that_is_not_built_is_named_with_the_missing_file() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(CONFIG), complete()).unwrap();
        let text = UsersTree::open(folder.path()).err().unwrap().to_string();
        assert!(
            text.contains(RELEASE) && text.contains("CONFIG_RUST=y"),
            "{text}"
        );
    }
}
