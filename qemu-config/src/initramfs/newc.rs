// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The archive format of an initramfs: "newc" cpio.

use std::io::{self, Read, Write};
use std::path::Path;

use cpio::newc;

/// The kind bits of a mode.
pub(super) mod kind {
    pub(crate) const FOLDER: u32 = 0o040_000;
    pub(crate) const FILE: u32 = 0o100_000;
    pub(crate) const SYMLINK: u32 = 0o120_000;
    pub(crate) const CHARACTER_DEVICE: u32 = 0o020_000;
}

/// What the header of an entry says. All is owned by root.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Header {
    /// Kind and permissions.
    pub(super) mode: u32,
    /// Seconds since 1970.
    pub(super) mtime: u32,
    /// Major and minor number of a device node.
    pub(super) device: (u32, u32),
}

/// Writes an archive entry by entry.
pub(super) struct Writer<W> {
    out: W,
    entries: u32,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, entries: 0 }
    }

    /// Adds one entry. `name` has no leading slash; `content` gives exactly `length` bytes.
    pub(super) fn entry(
        &mut self,
        name: &Path,
        header: Header,
        length: u64,
        content: &mut dyn Read,
    ) -> io::Result<()> {
        let name = name.to_str().ok_or_else(|| {
            let text = "the archive takes names in UTF-8";
            io::Error::new(io::ErrorKind::InvalidFilename, text)
        })?;
        let size = u32::try_from(length).map_err(|_| {
            let text = "the archive takes files below 4 GiB";
            io::Error::new(io::ErrorKind::FileTooLarge, text)
        })?;
        // Each entry has a number of its own, so that none is taken for a hard link of another.
        self.entries += 1;
        let (major, minor) = header.device;
        let mut entry = newc::Builder::new(name)
            .ino(self.entries)
            .mode(header.mode)
            .nlink(1)
            .mtime(header.mtime)
            .rdev_major(major)
            .rdev_minor(minor)
            .write(&mut self.out, size);
        let copied = io::copy(&mut content.take(length), &mut entry)?;
        if copied != length {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("it has {copied} bytes and had {length} when it was looked at"),
            ));
        }
        entry.finish().map(drop)
    }

    /// Ends the archive.
    pub(super) fn finish(self) -> io::Result<W> {
        let mut out = newc::trailer(self.out)?;
        out.flush()?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_laid_out_as_the_kernel_reads_it() {
        let mut writer = Writer::new(Vec::new());
        let header = Header {
            mode: kind::FILE | 0o755,
            mtime: 0x1234,
            device: (0, 0),
        };
        writer
            .entry(Path::new("init"), header, 5, &mut &b"hello"[..])
            .unwrap();
        let bytes = writer.finish().unwrap();
        let expected_head = concat!(
            "070701", "00000001", "000081ed", "00000000", "00000000", "00000001", "00001234",
            "00000005", "00000000", "00000000", "00000000", "00000000", "00000005", "00000000",
        );
        assert_eq!(&bytes[..110], expected_head.as_bytes());
        // 110 and 5 bytes of name make 115; the content begins at 116 and takes 8.
        assert_eq!(&bytes[110..124], b"init\0\0hello\0\0\0");
        assert_eq!(&bytes[124..130], b"070701");
        assert_eq!(&bytes[124 + 110..], b"TRAILER!!!\0\0\0\0");
        assert_eq!(bytes.len() % 4, 0);
    }

    #[test]
    fn a_file_that_shrank_is_an_error() {
        let mut writer = Writer::new(Vec::new());
        let error = writer
            .entry(Path::new("a"), Header::default(), 5, &mut &b"abc"[..])
            .unwrap_err();
        assert!(error.to_string().contains("3 bytes"), "{error}");
    }

    #[test]
    fn a_file_of_4_gib_is_an_error() {
        let mut writer = Writer::new(Vec::new());
        let error = writer
            .entry(
                Path::new("a"),
                Header::default(),
                1 << 32,
                &mut io::repeat(0),
            )
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }
}
