// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The programs and files of the host, the packages that have them, and whether they are there.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::find_program;
use crate::process;

/// How a need is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Probe {
    Program(&'static str),
    AnyFile(&'static [&'static str]),
    StaticLibrary(&'static str),
}

/// One thing that the host has to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// What it is called.
    pub name: &'static str,
    /// What it is for.
    pub purpose: &'static str,
    /// The package of Debian and its relatives that has it.
    pub debian: &'static str,
    /// The package of Fedora and its relatives that has it.
    pub fedora: &'static str,
    probe: Probe,
}

/// A need and where it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The need.
    pub need: Need,
    /// Where it is, or `None` when it is missing.
    pub found: Option<PathBuf>,
}

const KEYRINGS: &[&str] = &[
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "/usr/share/keyrings/debian-archive-keyring.pgp",
];

const NEEDS: &[Need] = &[
    Need {
        name: "apt-get",
        purpose: "downloads packages and checks their signatures",
        debian: "apt",
        fedora: "apt",
        probe: Probe::Program("apt-get"),
    },
    Need {
        name: "Debian archive keyring",
        purpose: "what the signatures are checked against",
        debian: "debian-archive-keyring",
        fedora: "debian-keyring",
        probe: Probe::AnyFile(KEYRINGS),
    },
    Need {
        name: "dpkg-deb",
        purpose: "unpacks packages",
        debian: "dpkg",
        fedora: "dpkg",
        probe: Probe::Program("dpkg-deb"),
    },
    Need {
        name: "tar",
        purpose: "unpacks packages and the kernel source",
        debian: "tar",
        fedora: "tar",
        probe: Probe::Program("tar"),
    },
    Need {
        name: "xz",
        purpose: "unpacks the kernel source",
        debian: "xz-utils",
        fedora: "xz",
        probe: Probe::Program("xz"),
    },
    Need {
        name: "bwrap",
        purpose: "enters the build root (bubblewrap)",
        debian: "bubblewrap",
        fedora: "bubblewrap",
        probe: Probe::Program("bwrap"),
    },
    Need {
        name: "cc",
        purpose: "links the guest's static programs",
        debian: "gcc",
        fedora: "gcc",
        probe: Probe::Program("cc"),
    },
    Need {
        name: "libc.a",
        purpose: "the static C library for them",
        debian: "libc6-dev",
        fedora: "glibc-static",
        probe: Probe::StaticLibrary("libc.a"),
    },
];

/// Looks for everything that set-up needs of this machine.
#[must_use]
pub fn examine() -> Vec<Finding> {
    NEEDS
        .iter()
        .map(|need| Finding {
            need: *need,
            found: find(need.probe),
        })
        .collect()
}

/// The commands that install the packages of `missing`: apt's, and dnf's.
#[must_use]
pub fn install_commands(missing: &[Need]) -> (String, String) {
    let list = |package: fn(&Need) -> &'static str| {
        missing.iter().map(package).collect::<Vec<_>>().join(" ")
    };
    (
        format!(
            "sudo apt-get install --no-install-recommends {}",
            list(|need| need.debian)
        ),
        format!("sudo dnf install {}", list(|need| need.fedora)),
    )
}

/// The keys that Debian's archive is signed with.
pub(crate) fn debian_keyring() -> Option<PathBuf> {
    find(Probe::AnyFile(KEYRINGS))
}

fn find(probe: Probe) -> Option<PathBuf> {
    match probe {
        Probe::Program(name) => find_program(name),
        Probe::AnyFile(paths) => (paths.iter().map(PathBuf::from)).find(|path| path.is_file()),
        Probe::StaticLibrary(name) => static_library(name),
    }
}

/// The usual places first; asking the compiler is right everywhere and costs a process.
fn static_library(name: &str) -> Option<PathBuf> {
    ["/usr/lib/x86_64-linux-gnu", "/usr/lib64"]
        .map(|folder| Path::new(folder).join(name))
        .into_iter()
        .find(|path| path.is_file())
        .or_else(|| {
            let mut command = Command::new(find_program("cc")?);
            command.arg(format!("-print-file-name={name}"));
            let answer = process::output("find the static C library", &mut command).ok()?;
            // A compiler that does not know the library answers with the bare name.
            Some(PathBuf::from(answer.trim())).filter(|path| path.is_absolute() && path.is_file())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_and_a_file_are_found_and_missed() {
        assert!(find(Probe::Program("sh")).is_some());
        assert_eq!(find(Probe::Program("no-such-program-here")), None);
        assert_eq!(find(Probe::AnyFile(&["/nonexistent"])), None);
        assert_eq!(static_library("libno-such-library-here.a"), None);
    }

    #[test]
    fn the_commands_name_the_packages_of_each_family() {
        let needs: Vec<Need> = (NEEDS.iter().copied())
            .filter(|need| ["xz", "libc.a"].contains(&need.name))
            .collect();
        let (apt, dnf) = install_commands(&needs);
        assert!(apt.ends_with(" xz-utils libc6-dev"), "{apt}");
        assert!(dnf.ends_with(" xz glibc-static"), "{dnf}");
    }
}
