// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! QEMU and virtiofsd: the host's own where they will do, else Debian's, run through their own loader.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cache::{Key, KeyBuilder};
use crate::environment::Launcher;
use crate::host::find_program;
use crate::packages::{Closure, Request, unpack};
use crate::workshop::Workshop;
use crate::{Result, SetupError, process};

/// The name of the step.
pub(crate) const STEP: &str = "qemu";
const VERSION: u32 = 1;

const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
const LOADER: &str = "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2";
const QEMU: &str = "usr/bin/qemu-system-x86_64";
const VIRTIOFSD: &str = "usr/libexec/virtiofsd";
/// The generic vhost-user device that a user may create.
const DEVICE: &str = "vhost-user-test-device-pci";

/// The two programs.
pub(crate) struct Emulator {
    pub(crate) qemu: Launcher,
    pub(crate) version: String,
    pub(crate) virtiofsd: Launcher,
}

/// Finds or makes QEMU and virtiofsd.
pub(crate) fn emulator(workshop: &Workshop) -> Result<Emulator> {
    let (qemu, virtiofsd) = match (host_qemu(), host_virtiofsd()) {
        (Some(qemu), Some(virtiofsd)) => (qemu, virtiofsd),
        (qemu, virtiofsd) => {
            let root = root(workshop)?;
            (
                qemu.unwrap_or_else(|| unpacked_qemu(&root)),
                virtiofsd.unwrap_or_else(|| unpacked(&root, VIRTIOFSD)),
            )
        }
    };
    let version = process::output("ask QEMU for its version", qemu.command().arg("--version"))?;
    let version = version.lines().next().unwrap_or_default().to_owned();
    Ok(Emulator {
        qemu,
        version,
        virtiofsd,
    })
}

/// Whether a QEMU has the device is asked of QEMU: distributions build the same version differently.
pub(crate) fn host_qemu() -> Option<Launcher> {
    let program = find_program("qemu-system-x86_64")?;
    let mut command = Command::new(&program);
    let help = process::output("list QEMU's devices", command.args(["-device", "help"])).ok()?;
    lists_device(&help).then_some(Launcher {
        program,
        args: Vec::new(),
    })
}

fn lists_device(help: &str) -> bool {
    help.contains(&format!("\"{DEVICE}\""))
}

/// The older virtiofsd in C has other options under the same name.
fn host_virtiofsd() -> Option<Launcher> {
    let program = find_program("virtiofsd").or_else(|| {
        [
            "/usr/libexec/virtiofsd",
            "/usr/lib/qemu/virtiofsd",
            "/usr/lib/virtiofsd",
        ]
        .map(PathBuf::from)
        .into_iter()
        .find(|path| path.is_file())
    })?;
    let mut command = Command::new(&program);
    let help = process::output("list virtiofsd's options", command.arg("--help")).ok()?;
    (["--shared-dir", "--readonly", "--fd"].iter())
        .all(|option| help.contains(option))
        .then_some(Launcher {
            program,
            args: Vec::new(),
        })
}

/// What the packages' folder is made of.
pub(crate) fn key(workshop: &Workshop) -> Key {
    KeyBuilder::new(STEP, VERSION)
        .value(&workshop.pins.suites)
        .value(&workshop.pins.qemu)
        .finish()
}

fn root(workshop: &Workshop) -> Result<PathBuf> {
    workshop.step(STEP, &key(workshop), |work| {
        let requests: Vec<Request> = (workshop.pins.qemu.packages.iter())
            .map(|(package, version)| Request::pinned(package, version))
            .collect();
        let download = workshop.fetch(STEP, &requests, Closure::WithDependencies)?;
        let count = download.files.len() as u64;
        let step = workshop
            .progress
            .step(&format!("unpack {STEP} ({count} packages)"), Some(count));
        unpack(&download.files, work, &[], &step)?;
        download.discard()?;
        step.finish("unpacked");
        let files = [
            LOADER,
            QEMU,
            VIRTIOFSD,
            "usr/lib/x86_64-linux-gnu/libc.so.6",
        ];
        let qemu = unpacked_qemu(work);
        let help = process::output(
            "list the devices of the unpacked QEMU",
            qemu.command().args(["-device", "help"]),
        )?;
        if !lists_device(&help) {
            return Err(SetupError::invalid(
                &work.join(QEMU),
                format!(
                    "expected a QEMU with the device {DEVICE}; change [qemu.packages] of the pins"
                ),
            ));
        }
        Ok(files.map(PathBuf::from).to_vec())
    })
}

fn unpacked_qemu(root: &Path) -> Launcher {
    let mut launcher = unpacked(root, QEMU);
    for folder in ["usr/share/qemu", "usr/share/seabios"] {
        launcher.args.push("-L".into());
        launcher.args.push(root.join(folder).into());
    }
    launcher
}

/// The host's loader and C library may be older than the program, so that it takes those it was built with.
fn unpacked(root: &Path, program: &str) -> Launcher {
    Launcher {
        program: root.join(LOADER),
        args: vec![
            OsString::from("--library-path"),
            root.join(LIBRARIES).into(),
            root.join(program).into(),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_listed_by_its_whole_name() {
        let line = |name: &str| format!("Misc devices:\nname \"{name}\", bus PCI\n");
        assert!(lists_device(&line("vhost-user-test-device-pci")));
        assert!(!lists_device(&line(
            "vhost-user-test-device-pci-non-transitional"
        )));
        assert!(!lists_device(&line("vhost-user-device-pci")));
        assert!(!lists_device(""));
    }

    #[test]
    fn an_unpacked_program_starts_through_its_own_loader() {
        let launcher = unpacked_qemu(Path::new("/r"));
        assert_eq!(launcher.program, Path::new("/r").join(LOADER));
        let args: Vec<_> = launcher
            .args
            .iter()
            .map(|arg| arg.to_string_lossy())
            .collect();
        assert_eq!(args[0], "--library-path");
        assert_eq!(args[2], "/r/usr/bin/qemu-system-x86_64");
        assert_eq!(
            args[3..],
            ["-L", "/r/usr/share/qemu", "-L", "/r/usr/share/seabios"]
        );
    }
}
