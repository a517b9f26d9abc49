// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The programs and files of the host, the packages that have them, and whether they are there.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::find_program;
use crate::process;

/// What the host is needed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// The set-up of everything that a guest is made of.
    Setup,
    /// The fuzzer of the device.
    Fuzz,
}

impl Task {
    fn needs(self) -> &'static [Need] {
        match self {
            Self::Setup => SETUP_NEEDS,
            Self::Fuzz => FUZZ_NEEDS,
        }
    }
}

/// How a need is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Probe {
    Program(&'static str),
    /// The program that `variable` names, with or without arguments, and `program` where it is not set.
    Chosen {
        variable: &'static str,
        program: &'static str,
    },
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

const SETUP_NEEDS: &[Need] = &[
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

const FUZZ_NEEDS: &[Need] = &[Need {
    name: "c++",
    purpose: "compiles libFuzzer; the variable CXX names another C++ compiler",
    debian: "g++",
    fedora: "gcc-c++",
    probe: Probe::Chosen {
        variable: "CXX",
        program: "c++",
    },
}];

/// Looks for everything that `task` needs of this machine.
#[must_use]
pub fn examine(task: Task) -> Vec<Finding> {
    task.needs()
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
        Probe::Chosen { variable, program } => {
            let chosen = std::env::var(variable).unwrap_or_default();
            find_program(chosen.split_whitespace().next().unwrap_or(program))
        }
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
        // A variable that every environment has and that names no program, and one that none has.
        let chosen = |variable, program| find(Probe::Chosen { variable, program });
        assert_eq!(chosen("PATH", "sh"), None);
        assert_eq!(chosen("HMM_NOT_SET_ANYWHERE", "sh"), find_program("sh"));
    }

    #[test]
    fn the_commands_name_the_packages_of_each_family() {
        let needs: Vec<Need> = (SETUP_NEEDS.iter().chain(FUZZ_NEEDS).copied())
            .filter(|need| ["xz", "libc.a", "c++"].contains(&need.name))
            .collect();
        let (apt, dnf) = install_commands(&needs);
        assert!(apt.ends_with(" xz-utils libc6-dev g++"), "{apt}");
        assert!(dnf.ends_with(" xz glibc-static gcc-c++"), "{dnf}");
    }
}
