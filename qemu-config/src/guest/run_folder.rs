// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One folder a boot, for its logs.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// The folder of one boot. It is removed with the value unless it is to be kept.
#[derive(Debug)]
pub(crate) struct RunFolder {
    path: PathBuf,
    keep: AtomicBool,
}

/// Boots of this process so far.
static NUMBER: AtomicU32 = AtomicU32::new(0);

impl RunFolder {
    /// Makes `<runs>/<name>-<pid>-<number>`.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(crate) fn create(runs: &Path, name: &str) -> io::Result<Self> {
        fs::create_dir_all(runs)?;
        let runs = runs.canonicalize()?;
        loop {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let path = runs.join(format!("{name}-{}-{number}", std::process::id()));
            match fs::create_dir(&path) {
                Ok(()) => {
                    return Ok(Self {
                        path,
                        keep: AtomicBool::new(false),
                    });
                }
                // A folder that an earlier process with the same number kept.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A file in it.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A new file in it, open for writing.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(crate) fn create_file(&self, name: &str) -> io::Result<File> {
        File::create(self.file(name))
    }

    /// Leaves the folder where it is.
    pub(crate) fn keep(&self) {
        self.keep.store(true, Ordering::Relaxed);
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        if !self.keep.load(Ordering::Relaxed) {
            // What is left behind lies in the target folder and is named after a process that is gone.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// The end of a log, for a message: at most `lines` lines that are not empty.
pub(crate) fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).replace('\r', "");
    let all: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_removed_unless_it_is_kept() {
        let runs = tempfile::tempdir().unwrap();
        let first = RunFolder::create(runs.path(), "a").unwrap();
        let second = RunFolder::create(runs.path(), "a").unwrap();
        let (gone, kept) = (first.path().to_owned(), second.path().to_owned());
        assert_ne!(gone, kept);
        second.keep();
        drop((first, second));
        assert!(!gone.exists() && kept.exists());
    }

    #[test]
    fn the_tail_is_the_last_lines() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "1\r\n\r\n2\r\n3\r\n").unwrap();
        assert_eq!(tail(file.path(), 2), "2\n3");
        assert_eq!(tail(Path::new("/nonexistent/log"), 2), "");
    }
}
