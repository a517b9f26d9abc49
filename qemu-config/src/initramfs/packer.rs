// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Programs with everything that they need to start, each file at the place that it has on its own system.

mod needs;

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::libraries::{CACHE, LibraryFolders};
use super::rooted::{Resolved, Root};
use super::tree::{Tree, TreeError};

/// Where programs are looked for inside a system that is not this process's own.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Collects files.
#[derive(Debug)]
pub struct Packer {
    root: Root,
    search_path: OsString,
    folders: LibraryFolders,
    tree: Tree,
    /// What has been looked at, without links.
    done: BTreeSet<PathBuf>,
}

/// Why something could not be packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// There is no such program.
    #[error("there is no program {} in {}", name.to_string_lossy(), searched.to_string_lossy())]
    NotFound {
        /// Its name.
        name: OsString,
        /// The folders.
        searched: OsString,
    },
    /// A library is missing.
    #[error("{} needs the library {}, which is not on this system", program.display(), library.to_string_lossy())]
    Library {
        /// What needs it.
        program: PathBuf,
        /// Its name.
        library: OsString,
    },
    /// A program cannot be understood.
    #[error("{}: {reason}", program.display())]
    Program {
        /// The program.
        program: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It does not fit with what is packed already.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// Whether what a file needs has to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// The file will be executed.
    Must,
    /// It is one of many, and perhaps never used.
    IfThere,
}

impl Packer {
    /// Packs from this system. Programs are looked for in `search_path`.
    #[must_use]
    pub fn of_this_system(search_path: &OsStr) -> Self {
        Self::new(Path::new("/"), search_path)
    }

    /// Packs from a system that is unpacked in `folder`.
    #[must_use]
    pub fn of_folder(folder: &Path) -> Self {
        Self::new(folder, OsStr::new(DEFAULT_PATH))
    }

    fn new(folder: &Path, search_path: &OsStr) -> Self {
        let root = Root::new(folder);
        Self {
            folders: LibraryFolders::of(&root),
            root,
            search_path: search_path.to_owned(),
            tree: Tree::default(),
            done: BTreeSet::new(),
        }
    }

    /// Packs a program with its libraries and, for a script, its interpreter. A name with a slash is a path, from
    /// `cwd` if it is relative. Returns where the program is.
    ///
    /// # Errors
    /// When the program or something that it needs is not there.
    pub fn program(&mut self, name: &OsStr, cwd: &Path) -> Result<PathBuf, PackError> {
        let path = self
            .find_program(name, cwd)
            .ok_or_else(|| PackError::NotFound {
                name: name.to_owned(),
                searched: self.search_path.clone(),
            })?;
        self.add(&path, Need::Must)?;
        Ok(path)
    }

    /// Packs a file, or a folder with everything in it, at its own place.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn file(&mut self, path: &Path) -> Result<(), PackError> {
        self.add(path, Need::IfThere)
    }

    /// Packs a file, or a folder with everything in it, at another place.
    ///
    /// # Errors
    /// When it cannot be read, or the place is taken.
    pub fn file_at(&mut self, path: &Path, guest: &Path) -> Result<(), PackError> {
        let resolved = self.resolve(path)?;
        self.copy(&resolved.path, guest, Need::IfThere)
    }

    /// What was packed. With libraries goes the loader's list of where they are.
    ///
    /// # Errors
    /// When the list cannot be packed.
    pub fn finish(mut self) -> Result<Tree, PackError> {
        if self.root.outside(Path::new(CACHE)).is_file() {
            self.add(Path::new(CACHE), Need::IfThere)?;
        }
        Ok(self.tree)
    }

    fn find_program(&self, name: &OsStr, cwd: &Path) -> Option<PathBuf> {
        let executable = |path: &PathBuf| {
            let resolved = self.root.resolve(path);
            resolved.is_ok_and(|resolved| is_executable(&self.root.outside(&resolved.path)))
        };
        if name.as_bytes().contains(&b'/') {
            return Some(cwd.join(name)).filter(executable);
        }
        std::env::split_paths(&self.search_path)
            .map(|folder| cwd.join(folder).join(name))
            .find(executable)
    }

    fn resolve(&self, path: &Path) -> Result<Resolved, PackError> {
        self.root.resolve(path).map_err(|source| PackError::Io {
            path: self.root.outside(path),
            source,
        })
    }

    /// Adds a file at its own place, with the links on the way to it.
    fn add(&mut self, path: &Path, need: Need) -> Result<(), PackError> {
        let Resolved { path, links } = self.resolve(path)?;
        for (link, target) in links {
            self.tree.symlink(link, target)?;
        }
        self.copy(&path, &path.clone(), need)
    }

    /// Adds what is at `path`, where no link is on the way, as `guest`.
    fn copy(&mut self, path: &Path, guest: &Path, need: Need) -> Result<(), PackError> {
        if path == guest && !self.done.insert(path.to_owned()) {
            return Ok(());
        }
        let outside = self.root.outside(path);
        let failed = |source| PackError::Io {
            path: outside.clone(),
            source,
        };
        let kind = fs::symlink_metadata(&outside).map_err(failed)?.file_type();
        if kind.is_dir() {
            self.tree.folder(guest)?;
            for entry in fs::read_dir(&outside).map_err(failed)? {
                let name = entry.map_err(failed)?.file_name();
                self.copy(&path.join(&name), &guest.join(&name), need)?;
            }
        } else if kind.is_symlink() {
            let target = fs::read_link(&outside).map_err(failed)?;
            self.tree.symlink(guest, target)?;
        } else if kind.is_file() {
            self.tree.host_file(guest, &outside)?;
            self.add_needs(path, need)?;
        }
        Ok(())
    }
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path)
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::super::elf;
    use super::*;

    fn path() -> OsString {
        std::env::var_os("PATH").unwrap()
    }

    /// Runs a packed program in a folder of its own through its own loader, with nothing else to be found.
    #[test]
    fn a_packed_program_has_all_that_the_loader_asks_for() {
        let mut packer = Packer::of_this_system(&path());
        let program = packer.program(OsStr::new("ls"), Path::new("/")).unwrap();
        let tree = packer.finish().unwrap();
        let listed = Command::new("ldd").arg(&program).output().unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        let libraries: Vec<&str> = listed
            .lines()
            .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
            .collect();
        assert!(libraries.len() >= 2, "{listed}");
        for library in libraries {
            let real = fs::canonicalize(library).unwrap();
            assert!(tree.contains(&real), "{library} is missing");
        }
    }

    #[test]
    fn a_script_brings_its_interpreter() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("script");
        fs::write(&script, "#!/usr/bin/env -S sh -e\nexit 0\n").unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let mut packer = Packer::of_this_system(&path());
        packer
            .program(OsStr::new("./script"), folder.path())
            .unwrap();
        let tree = packer.finish().unwrap();
        for program in ["/usr/bin/env", "/bin/sh"] {
            assert!(
                tree.contains(fs::canonicalize(program).unwrap()),
                "{program}"
            );
        }
        assert!(tree.contains(&script));
    }

    #[test]
    fn a_missing_program_and_a_missing_library_are_named() {
        let mut packer = Packer::of_this_system(&path());
        let error = packer
            .program(OsStr::new("no-such-program"), Path::new("/"))
            .unwrap_err();
        assert!(error.to_string().contains("no-such-program"));

        // A system that has the program and not its libraries.
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("usr/bin")).unwrap();
        fs::copy(
            fs::canonicalize("/bin/ls").unwrap(),
            folder.path().join("usr/bin/ls"),
        )
        .unwrap();
        let interpreter = elf::dynamic(&fs::read("/bin/ls").unwrap())
            .unwrap()
            .unwrap()
            .interpreter
            .unwrap();
        let own = folder.path().join(interpreter.strip_prefix("/").unwrap());
        fs::create_dir_all(own.parent().unwrap()).unwrap();
        fs::copy(interpreter, own).unwrap();
        let error = Packer::of_folder(folder.path())
            .program(OsStr::new("ls"), Path::new("/"))
            .unwrap_err();
        assert!(matches!(error, PackError::Library { .. }), "{error}");
    }

    #[test]
    fn a_folder_comes_with_everything_in_it_where_it_is_wanted() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("inner")).unwrap();
        fs::write(folder.path().join("inner/text"), "#!not a program").unwrap();
        std::os::unix::fs::symlink("inner/text", folder.path().join("link")).unwrap();
        let mut packer = Packer::of_this_system(&path());
        packer.file_at(folder.path(), Path::new("/data")).unwrap();
        let tree = packer.finish().unwrap();
        assert!(tree.contains("/data/inner/text") && tree.contains("/data/link"));
    }
}
