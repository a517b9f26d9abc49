// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A command that gets its own files and nothing else of the host.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use hmm_vm::initramfs::{Packer, Tree};

/// The guest's own program, which is there in any case.
const HMMCTL: &str = "hmmctl";
/// What stands between its own arguments and the program that it runs.
const SEPARATOR: &str = "--";

/// A file to pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileArgument {
    host: PathBuf,
    guest: Option<PathBuf>,
}

impl FileArgument {
    /// Reads `HOST[:GUEST]`. A file with a colon in its name is meant by its whole name.
    pub(crate) fn read(text: OsString) -> anyhow::Result<Self> {
        let colon = text.as_bytes().iter().rposition(|byte| *byte == b':');
        let Some(colon) = colon.filter(|_| !Path::new(&text).exists()) else {
            return Ok(Self {
                host: text.into(),
                guest: None,
            });
        };
        let part = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
        let (host, guest) = (
            part(&text.as_bytes()[..colon]),
            part(&text.as_bytes()[colon + 1..]),
        );
        if !guest.is_absolute() {
            bail!(
                "the path in the guest has to be absolute, and it is {:?}",
                guest
            );
        }
        Ok(Self {
            host,
            guest: Some(guest),
        })
    }
}

/// Packs the command, other programs and the files. The working directory is there, and empty but for them.
pub(crate) fn pack(
    command: &[OsString],
    programs_beside: &[&str],
    files: &[FileArgument],
    cwd: &Path,
) -> anyhow::Result<Tree> {
    if is_hidden(cwd) {
        bail!(
            "the guest has its own {}; start a hermetic command from a directory outside /dev, /proc and /sys, \
             or from one below /dev/shm",
            cwd.display()
        );
    }
    let search_path = std::env::var_os("PATH").unwrap_or_default();
    let mut packer = Packer::of_this_system(&search_path);
    let beside = programs_beside.iter().map(OsStr::new);
    for program in program(command).into_iter().chain(beside) {
        packer.program(program, cwd)?;
    }
    for file in files {
        let host = std::path::absolute(cwd.join(&file.host))
            .with_context(|| format!("--file {}", file.host.display()))?;
        let place = file.guest.as_deref().unwrap_or(&host);
        if is_hidden(place) {
            bail!(
                "--file {}: the guest's own mounts would hide {}; give it another place, as in --file {}:/data",
                file.host.display(),
                place.display(),
                file.host.display()
            );
        }
        match &file.guest {
            Some(guest) => packer.file_at(&host, guest)?,
            None => packer.file(&host)?,
        }
    }
    let mut tree = packer.finish()?;
    furnish(&mut tree)?;
    if !tree.contains(cwd) {
        tree.folder(cwd)?;
    }
    Ok(tree)
}

/// Whether a mount of the guest's hides this place of the image. The guest keeps what the image has below `/tmp` and `/dev/shm`.
fn is_hidden(place: &Path) -> bool {
    ["/dev", "/proc", "/sys"]
        .iter()
        .any(|own| place.starts_with(own))
        && !place.starts_with("/dev/shm")
}

/// Adds the little that programs take for granted.
pub(crate) fn furnish(tree: &mut Tree) -> anyhow::Result<()> {
    for folder in ["/root", "/tmp", "/var/tmp"] {
        if !tree.contains(folder) {
            tree.folder(folder)?;
        }
    }
    for (path, content) in [
        ("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
        ("/etc/group", "root:x:0:\n"),
        ("/etc/hosts", "127.0.0.1 localhost\n"),
    ] {
        if !tree.contains(path) {
            tree.bytes(path, content, 0o644)?;
        }
    }
    Ok(())
}

/// The program of a command that has to be packed: its first word, or the first word of what hmmctl runs, which may be
/// hmmctl once more.
fn program(mut command: &[OsString]) -> Option<&OsStr> {
    while command.first()? == HMMCTL {
        let separator = command.iter().position(|word| word == SEPARATOR)?;
        command = command.get(separator + 1..)?;
    }
    command.first().map(OsString::as_os_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hmmctl_runs_is_packed_and_hmmctl_is_not() {
        let program = |words: &[&str]| {
            let words: Vec<OsString> = words.iter().map(Into::into).collect();
            program(&words).map(OsStr::to_owned)
        };
        let sort = || Some("sort".into());
        assert_eq!(program(&["sort", "--", "x"]), sort());
        let run = ["hmmctl", "run", "--policy", "churn", "--", "sort", "x"];
        assert_eq!(program(&run), sort());
        let record = [&["hmmctl", "record", "-o", "f", "--"], &run[..]].concat();
        assert_eq!(program(&record), sort());
        assert_eq!(program(&["hmmctl", "info"]), None);
        assert_eq!(program(&["hmmctl", "run", "--"]), None);
    }

    #[test]
    fn places_that_the_guest_would_hide_are_refused() {
        let pack = |file: &str, cwd: &str| {
            let files = [FileArgument::read(file.into()).unwrap()];
            pack(&["true".into()], &[], &files, Path::new(cwd)).map_err(|error| error.to_string())
        };
        for cwd in ["/proc/1", "/sys/kernel", "/dev", "/dev/hugepages"] {
            let error = pack("/etc/passwd", cwd).unwrap_err();
            assert!(
                error.contains(cwd) && error.contains("from a directory"),
                "{error}"
            );
        }
        let error = pack("/etc/passwd:/dev/data", "/").unwrap_err();
        assert!(error.contains("give it another place"), "{error}");
        for cwd in ["/tmp", "/dev/shm/folder", "/devices"] {
            let tree = pack("/etc/passwd:/dev/shm/data", cwd).unwrap();
            assert!(tree.contains(cwd) && tree.contains("/dev/shm/data"));
        }
    }

    #[test]
    fn the_place_in_the_guest_stands_after_the_last_colon() {
        let folder = tempfile::tempdir().unwrap();
        let odd = folder.path().join("a:b");
        std::fs::write(&odd, "").unwrap();
        let read = |text: &Path| FileArgument::read(text.into());
        assert_eq!(
            read(&odd).unwrap(),
            FileArgument {
                host: odd.clone(),
                guest: None
            }
        );
        let placed = PathBuf::from(format!("{}:/data", odd.display()));
        let expected = FileArgument {
            host: odd,
            guest: Some("/data".into()),
        };
        assert_eq!(read(&placed).unwrap(), expected);
        assert!(read(Path::new("x:relative")).is_err());
    }
}
