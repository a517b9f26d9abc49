// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A kernel tree that the user has built: its own image, its own compilers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::config_value;
use crate::cache::{Key, KeyBuilder};
use crate::environment::Kernel;
use crate::host::find_program;
use crate::{Result, SetupError, process};

const IMAGE: &str = "arch/x86/boot/bzImage";
const RELEASE: &str = "include/config/kernel.release";
const CONFIG: &str = ".config";
const SYMVERS: &str = "Module.symvers";
const RUST_METADATA: &str = "rust/libkernel.rmeta";

/// What the driver needs of the kernel.
const REQUIRED: &[&str] = &[
    "CONFIG_DEVICE_PRIVATE",
    "CONFIG_HMM_MIRROR",
    "CONFIG_MODULES",
    "CONFIG_RUST",
    "CONFIG_VIRTIO_CONSOLE",
    "CONFIG_VIRTIO_PCI",
];

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
        for file in [CONFIG, RELEASE, IMAGE, SYMVERS, RUST_METADATA] {
            let path = folder.join(file);
            if !path.is_file() {
                return Err(SetupError::invalid(
                    &path,
                    "expected a kernel tree that is built (make, with CONFIG_RUST=y; the folder of O= if you used it), \
                     and this file is missing",
                ));
            }
        }
        let read = |file: &str| {
            let path = folder.join(file);
            fs::read_to_string(&path).map_err(SetupError::io("read", &path))
        };
        let config = read(CONFIG)?;
        let missing = missing_options(&config);
        if !missing.is_empty() {
            return Err(SetupError::invalid(
                &folder.join(CONFIG),
                format!(
                    "expected {} to be y; enable them and build again",
                    missing.join(", ")
                ),
            ));
        }
        let release = read(RELEASE)?.trim().to_owned();
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

    /// What `uname -r` says in the guest.
    pub(crate) fn release(&self) -> &str {
        &self.release
    }

    /// What the guest boots.
    pub(crate) fn kernel(&self) -> Kernel {
        Kernel {
            image: self.folder.join(IMAGE),
            release: self.release.clone(),
        }
    }

    /// A `make` for the modules of `folder` in `repository`, with the compilers that built the tree.
    pub(crate) fn make_modules(
        &self,
        repository: &Path,
        folder: &str,
        output: &Path,
        variables: &[&str],
        jobs: usize,
    ) -> Result<Command> {
        self.check_rust()?;
        let mut command = Command::new("make");
        own_environment(&mut command);
        command.arg("-C").arg(&self.folder).arg(format!("-j{jobs}"));
        command.args(compiler_variables(&self.config));
        for (variable, path) in [("M", repository.join(folder)), ("MO", output.to_owned())] {
            let mut argument = std::ffi::OsString::from(format!("{variable}="));
            argument.push(path);
            command.arg(argument);
        }
        command.args(variables).arg("modules");
        Ok(command)
    }

    /// Crates of one compiler cannot be read by another.
    fn check_rust(&self) -> Result<()> {
        let expected = config_value(&self.config, "CONFIG_RUSTC_VERSION_TEXT").unwrap_or_default();
        let mut command = Command::new("rustc");
        own_environment(&mut command);
        command.arg("--version").current_dir(&self.folder);
        let found = process::output("ask the Rust compiler for its version", &mut command)?;
        if found.trim() == expected {
            return Ok(());
        }
        Err(SetupError::invalid(
            &self.folder,
            format!(
                "the tree was built with \"{expected}\", and rustc in that folder is \"{}\"; make the same compiler the \
                 first in PATH, or rebuild the tree",
                found.trim()
            ),
        ))
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

fn missing_options(config: &str) -> Vec<&'static str> {
    (REQUIRED.iter().copied())
        .filter(|option| config_value(config, option) != Some("y"))
        .collect()
}

/// The variables that choose the compiler which the configuration names.
fn compiler_variables(config: &str) -> Vec<String> {
    let text = config_value(config, "CONFIG_CC_VERSION_TEXT").unwrap_or_default();
    if let Some((_, version)) = text.split_once("clang version ") {
        let major = version.split('.').next().unwrap_or_default();
        let versioned = find_program(&format!("clang-{major}"));
        return vec![match versioned {
            Some(_) => format!("LLVM=-{major}"),
            None => "LLVM=1".to_owned(),
        }];
    }
    match text.split_whitespace().next() {
        Some(compiler) => vec![format!("CC={compiler}")],
        None => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compiler_is_the_one_of_the_configuration() {
        let gcc = "CONFIG_CC_VERSION_TEXT=\"x86_64-linux-gnu-gcc-14 (Debian 14.2.0-19) 14.2.0\"\n";
        assert_eq!(compiler_variables(gcc), ["CC=x86_64-linux-gnu-gcc-14"]);
        let clang = "CONFIG_CC_VERSION_TEXT=\"Debian clang version 9999.1.7 (3+b1)\"\n";
        assert_eq!(compiler_variables(clang), ["LLVM=1"]);
        assert!(compiler_variables("").is_empty());
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

    #[test]
    fn a_tree_that_is_not_built_is_named_with_the_missing_file() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(CONFIG), "CONFIG_RUST=y\n").unwrap();
        let text = UsersTree::open(folder.path()).err().unwrap().to_string();
        assert!(
            text.contains(RELEASE) && text.contains("CONFIG_RUST=y"),
            "{text}"
        );
    }
}
