// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the demonstration lets a program do: sort source code.
//!
//! Program and text are those of the packages that the driver is built with, so that they are the same everywhere and
//! need no download of their own.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, ensure};
use hmm_vm::Progress;
use hmm_vm::initramfs::{Packer, Tree};
use sha2::{Digest, Sha256};

use crate::hermetic;

/// The program, and what fetches the summary.
const PROGRAM: &str = "sort";
const READER: &str = "cat";
/// Where the text is in the guest.
const TEXT: &str = "/data/source.txt";
/// Where the text comes from, in the build root: the source of Rust's library, then the headers of C's.
const SOURCES: [(&str, &str); 2] = [("usr/src", "rs"), ("usr/include", "h")];
/// The program keeps the text and a record of 32 bytes for each of its lines in memory, about twice this.
const TEXT_BYTES: usize = 40 << 20;

/// The task, ready to be put into a guest.
pub(super) struct Task {
    image: Tree,
    expected: Answer,
}

/// An output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    bytes: u64,
    sha256: String,
}

impl Task {
    /// Packs the program and the text, and computes what must come out.
    pub(super) fn prepare(build_root: &Path, progress: &Progress) -> anyhow::Result<Self> {
        let step = progress.step("gather source code to sort", None);
        let text = gather(build_root)?;
        let expected = Answer::of_bytes(&sorted(&text));
        let mut packer = Packer::of_folder(build_root);
        for program in [PROGRAM, READER] {
            packer.program(OsStr::new(program), Path::new("/"))?;
        }
        let mut image = packer.finish()?;
        hermetic::furnish(&mut image)?;
        step.finish(&format!("{} MiB", text.len() >> 20));
        image.bytes(TEXT, text, 0o644)?;
        Ok(Self { image, expected })
    }

    pub(super) fn image(&self) -> &Tree {
        &self.image
    }

    pub(super) fn expected(&self) -> &Answer {
        &self.expected
    }

    /// What it is called on the screen.
    pub(super) fn name(&self) -> String {
        format!("{PROGRAM} {} MiB of source code", TEXT_BYTES >> 20)
    }

    /// The command.
    pub(super) fn argv(&self) -> Vec<String> {
        [PROGRAM, TEXT].map(str::to_owned).to_vec()
    }
}

/// The text: whole lines, always the same.
fn gather(build_root: &Path) -> anyhow::Result<Vec<u8>> {
    let mut files = Vec::new();
    for (folder, ending) in SOURCES {
        let start = files.len();
        collect(&build_root.join(folder), OsStr::new(ending), &mut files).with_context(|| {
            format!(
                "cannot look for text in {}",
                build_root.join(folder).display()
            )
        })?;
        files[start..].sort();
    }
    let mut text = Vec::with_capacity(TEXT_BYTES);
    for file in files {
        text.extend(fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?);
        // A file that does not end its last line must not join it with the next file's first.
        if text.last().is_some_and(|byte| *byte != b'\n') {
            text.push(b'\n');
        }
        if text.len() >= TEXT_BYTES {
            break;
        }
    }
    ensure!(
        text.len() >= TEXT_BYTES,
        "{} has {} bytes of source code and the demonstration needs {TEXT_BYTES}",
        build_root.display(),
        text.len()
    );
    Ok(text)
}

fn collect(folder: &Path, ending: &OsStr, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            collect(&entry.path(), ending, files)?;
        } else if kind.is_file() && entry.path().extension() == Some(ending) {
            files.push(entry.path());
        }
    }
    Ok(())
}

/// What the program must give: the lines in the order of their bytes.
fn sorted(text: &[u8]) -> Vec<u8> {
    let mut lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    // The end of a line is no part of it: it would come after a tabulator and before a blank.
    lines.sort_unstable_by_key(|line| &line[..line.len() - 1]);
    lines.concat()
}

impl Answer {
    fn of_bytes(bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.len() as u64,
            sha256: hex(&Sha256::digest(bytes)),
        }
    }

    /// Everything that was written to the sink.
    pub(super) fn of(sink: &DigestSink) -> Self {
        let state = sink.0.lock().unwrap_or_else(PoisonError::into_inner);
        Self {
            bytes: state.bytes,
            sha256: hex(&state.hash.clone().finalize()),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} bytes, SHA-256 {}…",
            self.bytes,
            &self.sha256[..12]
        )
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Takes an output as its length and digest.
#[derive(Clone, Default)]
pub(super) struct DigestSink(Arc<Mutex<DigestState>>);

#[derive(Default)]
struct DigestState {
    bytes: u64,
    hash: Sha256,
}

impl Write for DigestSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.bytes += bytes.len() as u64;
        state.hash.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_in_the_order_that_sort_gives_them() {
        let text = b"b\n\na b\na\tb\na\nab\na\n\xff\nB\n";
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("text");
        fs::write(&file, text).unwrap();
        let output = std::process::Command::new("sort")
            .env("LC_ALL", "C")
            .arg(&file)
            .output()
            .unwrap();
        assert_eq!(sorted(text), output.stdout);
    }

    #[test]
    fn an_output_in_pieces_has_the_answer_of_the_whole() {
        let mut sink = DigestSink::default();
        sink.write_all(b"ab").unwrap();
        sink.write_all(b"c").unwrap();
        assert_eq!(Answer::of(&sink), Answer::of_bytes(b"abc"));
        assert_ne!(Answer::of(&sink), Answer::of_bytes(b"abd"));
    }
}
