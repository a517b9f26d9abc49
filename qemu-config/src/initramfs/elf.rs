// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a program says about the libraries that it needs.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use object::Endianness;
use object::elf::{
    DT_NEEDED, DT_NULL, DT_RPATH, DT_RUNPATH, DT_STRSZ, DT_STRTAB, DynamicTag, EM_X86_64,
    FileHeader64,
};
use object::read::elf::{Dyn, FileHeader, ProgramHeader};

/// The dynamic part of a program or library.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Dynamic {
    /// The loader that the kernel starts for it.
    pub(super) interpreter: Option<PathBuf>,
    /// Libraries, by name or path.
    pub(super) needed: Vec<OsString>,
    /// Where to look first, also for what the libraries need: the old form.
    pub(super) rpath: Vec<OsString>,
    /// Where to look first: the new form, which makes the old one void.
    pub(super) runpath: Option<Vec<OsString>>,
}

/// Why a file cannot be understood.
#[derive(Debug, thiserror::Error)]
pub(super) enum ElfError {
    #[error("it is a program for another processor; the guest runs x86-64 programs only")]
    Foreign,
    #[error("it is not a whole program: {0}")]
    Malformed(&'static str),
}

fn malformed(_: object::read::Error) -> ElfError {
    ElfError::Malformed("its headers point outside the file")
}

const MAGIC: &[u8] = b"\x7fELF";
const CLASS_64: u8 = 2;

/// Reads the dynamic part; `None` when the file is no program at all. A static program has an empty one.
pub(super) fn dynamic(data: &[u8]) -> Result<Option<Dynamic>, ElfError> {
    if !data.starts_with(MAGIC) {
        return Ok(None);
    }
    if data.get(MAGIC.len()) != Some(&CLASS_64) {
        return Err(ElfError::Foreign);
    }
    let header = FileHeader64::<Endianness>::parse(data).map_err(malformed)?;
    let endian = header.endian().map_err(malformed)?;
    if endian != Endianness::Little || header.e_machine(endian) != EM_X86_64 {
        return Err(ElfError::Foreign);
    }
    let segments = header.program_headers(endian, data).map_err(malformed)?;
    let mut found = Dynamic::default();
    let mut entries = None;
    for segment in segments {
        if let Some(path) = segment.interpreter(endian, data).map_err(malformed)? {
            found.interpreter = Some(OsString::from_vec(path.to_vec()).into());
        }
        if let Some(dynamic) = segment.dynamic(endian, data).map_err(malformed)? {
            entries = Some(dynamic);
        }
    }
    let entries: Vec<(DynamicTag, u64)> = entries
        .unwrap_or_default()
        .iter()
        .map(|entry| (entry.d_tag(endian), entry.d_val(endian)))
        .take_while(|(tag, _)| *tag != DT_NULL)
        .collect();
    let value = |wanted| {
        entries
            .iter()
            .find(|(tag, _)| *tag == wanted)
            .map(|(_, value)| *value)
    };
    let (Some(address), Some(size)) = (value(DT_STRTAB), value(DT_STRSZ)) else {
        return Ok(Some(found));
    };
    let strings = segments
        .iter()
        .find_map(|segment| {
            segment
                .data_range(endian, data, address, size)
                .ok()
                .flatten()
        })
        .ok_or(ElfError::Malformed("its table of names is not in the file"))?;
    for (tag, offset) in entries {
        if ![DT_NEEDED, DT_RPATH, DT_RUNPATH].contains(&tag) {
            continue;
        }
        let text =
            text_at(strings, offset).ok_or(ElfError::Malformed("a name is not in its table"))?;
        match tag {
            DT_NEEDED => found.needed.push(OsString::from_vec(text.to_vec())),
            DT_RPATH => found.rpath = folders(text),
            _ => found.runpath = Some(folders(text)),
        }
    }
    Ok(Some(found))
}

/// The text that begins at `offset` and ends before a zero byte.
fn text_at(strings: &[u8], offset: u64) -> Option<&[u8]> {
    let rest = strings.get(usize::try_from(offset).ok()?..)?;
    let length = rest.iter().position(|byte| *byte == 0)?;
    Some(&rest[..length])
}

fn folders(text: &[u8]) -> Vec<OsString> {
    text.split(|byte| *byte == b':')
        .filter(|folder| !folder.is_empty())
        .map(|folder| OsString::from_vec(folder.to_vec()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_very_program_is_dynamic() {
        let data = std::fs::read("/proc/self/exe").unwrap();
        let dynamic = dynamic(&data).unwrap().unwrap();
        assert!(
            dynamic
                .interpreter
                .unwrap()
                .to_string_lossy()
                .contains("ld-linux")
        );
        assert!(
            dynamic.needed.iter().any(|name| name == "libc.so.6"),
            "{:?}",
            dynamic.needed
        );
    }

    #[test]
    fn other_files_are_no_programs() {
        assert_eq!(dynamic(b"#!/bin/sh\n").unwrap(), None);
        assert_eq!(dynamic(b"").unwrap(), None);
    }

    #[test]
    fn cut_and_foreign_programs_are_errors() {
        assert!(matches!(
            dynamic(b"\x7fELF\x01\x01"),
            Err(ElfError::Foreign)
        ));
        assert!(matches!(
            dynamic(b"\x7fELF\x02\x01"),
            Err(ElfError::Malformed(_))
        ));
        let data = std::fs::read("/proc/self/exe").unwrap();
        assert!(dynamic(&data[..200]).is_err());
        let mut foreign = data.clone();
        // The two bytes that name the processor: ARM's.
        foreign[18] = 0xb7;
        assert!(matches!(dynamic(&foreign), Err(ElfError::Foreign)));
    }
}
