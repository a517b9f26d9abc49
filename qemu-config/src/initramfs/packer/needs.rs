// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a program needs to start: the interpreter of a script, the loader and the libraries of an ELF file.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::super::elf::{self, Dynamic};
use super::super::libraries::expanded;
use super::super::rooted::Resolved;
use super::{Need, PackError, Packer};

impl Packer {
    /// Adds what a file needs to be executed or loaded.
    pub(super) fn add_needs(&mut self, path: &Path, need: Need) -> Result<(), PackError> {
        let outside = self.root.outside(path);
        let failed = |source| PackError::Io {
            path: outside.clone(),
            source,
        };
        if !starts_like_a_program(&outside).map_err(failed)? {
            return Ok(());
        }
        let content = fs::read(&outside).map_err(failed)?;
        if let Some(words) = script_words(&content) {
            return match need {
                // Any text may start like a script.
                Need::IfThere => Ok(()),
                Need::Must => self.add_interpreter(&words),
            };
        }
        match elf::dynamic(&content) {
            Ok(Some(dynamic)) => self.add_libraries(path, &dynamic, &[], need),
            Ok(None) => Ok(()),
            Err(_) if need == Need::IfThere => Ok(()),
            Err(error) => Err(PackError::Program {
                program: outside,
                reason: error.to_string(),
            }),
        }
    }

    fn add_interpreter(&mut self, words: &[OsString]) -> Result<(), PackError> {
        let Some(interpreter) = words.first() else {
            return Ok(());
        };
        self.program(interpreter, Path::new("/"))?;
        // "env" looks for the next word as for a command.
        if Path::new(interpreter).file_name() == Some(OsStr::new("env")) {
            let program = words[1..].iter().find(|word| {
                !word.as_bytes().starts_with(b"-") && !word.as_bytes().contains(&b'=')
            });
            if let Some(program) = program {
                self.program(program, Path::new("/"))?;
            }
        }
        Ok(())
    }

    /// Adds the loader and the libraries. `inherited` are the folders that those who need this file look into first.
    fn add_libraries(
        &mut self,
        path: &Path,
        dynamic: &Dynamic,
        inherited: &[PathBuf],
        need: Need,
    ) -> Result<(), PackError> {
        if let Some(interpreter) = &dynamic.interpreter {
            match self.add(interpreter, need) {
                Err(_) if need == Need::IfThere => {}
                result => result?,
            }
        }
        let origin = path.parent().unwrap_or(Path::new("/"));
        let expand = |folders: &[OsString]| -> Vec<PathBuf> {
            folders
                .iter()
                .map(|folder| expanded(folder, origin))
                .collect()
        };
        let (own, passed_on) = match &dynamic.runpath {
            // The new form is for this file's own needs only, and makes the old one void.
            Some(runpath) => (expand(runpath), inherited.to_vec()),
            None => {
                let mut all = expand(&dynamic.rpath);
                all.extend_from_slice(inherited);
                (all.clone(), all)
            }
        };
        for name in &dynamic.needed {
            let first = own.iter().map(PathBuf::as_path);
            let Some(library) = self.folders.find(&self.root, name, first) else {
                if need == Need::IfThere {
                    continue;
                }
                return Err(PackError::Library {
                    program: self.root.outside(path),
                    library: name.clone(),
                });
            };
            self.add_library(&library, &passed_on, need)?;
        }
        Ok(())
    }

    fn add_library(
        &mut self,
        path: &Path,
        inherited: &[PathBuf],
        need: Need,
    ) -> Result<(), PackError> {
        let Resolved { path, links } = self.resolve(path)?;
        for (link, target) in links {
            self.tree.symlink(link, target)?;
        }
        if !self.done.insert(path.clone()) {
            return Ok(());
        }
        let outside = self.root.outside(&path);
        self.tree.host_file(&path, &outside)?;
        let content = fs::read(&outside).map_err(|source| PackError::Io {
            path: outside.clone(),
            source,
        })?;
        match elf::dynamic(&content) {
            Ok(Some(dynamic)) => self.add_libraries(&path, &dynamic, inherited, need),
            Ok(None) => Err(PackError::Program {
                program: outside,
                reason: "it is not a library".to_owned(),
            }),
            Err(error) => Err(PackError::Program {
                program: outside,
                reason: error.to_string(),
            }),
        }
    }
}

fn starts_like_a_program(path: &Path) -> io::Result<bool> {
    use std::io::Read;

    let mut start = Vec::new();
    fs::File::open(path)?.take(4).read_to_end(&mut start)?;
    Ok(start == b"\x7fELF" || start.starts_with(b"#!"))
}

/// The words of a script's first line: the interpreter and its arguments.
fn script_words(content: &[u8]) -> Option<Vec<OsString>> {
    let line = content
        .strip_prefix(b"#!")?
        .split(|byte| *byte == b'\n')
        .next()?;
    Some(
        line.split(u8::is_ascii_whitespace)
            .filter(|word| !word.is_empty())
            .map(|word| OsStr::from_bytes(word).to_owned())
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_script() {
        assert_eq!(
            script_words(b"#! /bin/sh -e\nx").unwrap(),
            ["/bin/sh", "-e"]
        );
        assert_eq!(script_words(b"text"), None);
    }
}
