// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The mappings of a process, as /proc/PID/maps tells them.

use std::io;
use std::ops::Range;

/// One mapping of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    /// Its addresses.
    pub(crate) range: Range<u64>,
    /// `rwxp`, as the kernel writes them.
    pub(crate) permissions: [u8; 4],
    /// Its name: a path, a word in brackets, or nothing.
    pub(crate) name: String,
}

impl Mapping {
    /// Parses one line. `None` if the line is none that the kernel writes.
    fn parse(line: &[u8]) -> Option<Self> {
        let (addresses, rest) = field(line)?;
        let (permissions, rest) = field(rest)?;
        let (_offset, rest) = field(rest)?;
        let (_device, rest) = field(rest)?;
        // An anonymous mapping's line may end with the inode.
        let (_inode, name) = field(rest).unwrap_or((rest, &[]));
        let addresses = std::str::from_utf8(addresses).ok()?;
        let (start, end) = addresses.split_once('-')?;
        Some(Self {
            range: u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?,
            permissions: permissions.try_into().ok()?,
            name: String::from_utf8_lossy(name.trim_ascii_start()).into_owned(),
        })
    }

    /// Whether any process can have this range: the page for old system calls lies beyond.
    pub(crate) fn is_user_memory(&self) -> bool {
        self.range.end <= 1 << 63
    }

    fn is_readable(&self) -> bool {
        self.permissions[0] == b'r'
    }

    fn is_writable(&self) -> bool {
        self.permissions[1] == b'w'
    }

    fn is_private(&self) -> bool {
        self.permissions[3] == b'p'
    }

    /// Whether the mapping is anonymous: it has no name, or one that says what it is used for.
    fn is_anonymous(&self) -> bool {
        let name = self.name.as_str();
        name.is_empty()
            || name == "[heap]"
            || name.starts_with("[stack")
            || name.starts_with("[anon:")
    }

    /// Whether the kernel made the mapping for itself (`[vdso]`, `[vvar]`, `[uprobes]`, ...).
    fn is_kernels(&self) -> bool {
        self.name.starts_with('[') && !self.is_anonymous()
    }

    /// Whether the program's own private pages may be here: in anonymous memory, and in private
    /// mappings of files, where a write leaves an anonymous copy of the page. Files that are mapped
    /// without write access seldom have such copies and are left out.
    pub(crate) fn may_hold_private_memory(&self) -> bool {
        self.is_user_memory()
            && self.is_private()
            && self.is_readable()
            && !self.is_kernels()
            && (self.is_anonymous() || self.is_writable())
    }
}

fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = line.iter().position(|&byte| byte == b' ')?;
    Some((&line[..end], &line[end + 1..]))
}

/// The mappings in the text of a maps file.
fn parse(text: &[u8]) -> io::Result<Vec<Mapping>> {
    text.split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| {
            Mapping::parse(line).ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!(
                        "no line of a maps file: '{}'",
                        String::from_utf8_lossy(line)
                    ),
                )
            })
        })
        .collect()
}

/// The mappings of a process. None at all if it has exited and waits for its parent.
pub(crate) fn of_process(pid: i32) -> io::Result<Vec<Mapping>> {
    parse(&std::fs::read(format!("/proc/{pid}/maps"))?)
}

#[cfg(test)]
mod tests {
    use super::{Mapping, of_process, parse};

    const TEXT: &[u8] = b"\
55d0c0a00000-55d0c0a02000 r--p 00000000 fe:01 1311 /usr/bin/sort of things
55d0c0a10000-55d0c0a11000 rw-p 0000f000 fe:01 1311 /usr/bin/sort of things
55d0c1b00000-55d0c1b21000 rw-p 00000000 00:00 0                          [heap]
7f0000000000-7f0000021000 rw-p 00000000 00:00 0 
7f0000021000-7f0004000000 ---p 00000000 00:00 0 
7f1000000000-7f1000100000 rw-s 00000000 00:01 2056                       /dev/zero (deleted)
7f2000000000-7f2000001000 rw-p 00000000 00:00 0                          [anon:arena]
7f3000000000-7f3000001000 r--p 00000000 fe:01 77                         /lib/\xff\xfe.so
7ffd1a000000-7ffd1a021000 rw-p 00000000 00:00 0                          [stack]
7ffd1a1f0000-7ffd1a1f4000 r--p 00000000 00:00 0                          [vvar]
7ffd1a1f4000-7ffd1a1f6000 r-xp 00000000 00:00 0                          [vdso]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
";

    fn starts(select: impl Fn(&Mapping) -> bool) -> Vec<u64> {
        let mappings = parse(TEXT).unwrap();
        mappings
            .iter()
            .filter(|mapping| select(mapping))
            .map(|mapping| mapping.range.start)
            .collect()
    }

    #[test]
    fn every_line_is_a_mapping() {
        let mappings = parse(TEXT).unwrap();
        assert_eq!(mappings.len(), 12);
        assert_eq!(mappings[0].name, "/usr/bin/sort of things");
        assert_eq!(mappings[2].range, 0x55d0_c1b0_0000..0x55d0_c1b2_1000);
        assert_eq!(mappings[3].name, "");
        assert_eq!(mappings[3].permissions, *b"rw-p");
    }

    #[test]
    fn private_memory_is_anonymous_or_a_writable_copy_of_a_file() {
        assert_eq!(
            starts(Mapping::may_hold_private_memory),
            [
                0x55d0_c0a1_0000,
                0x55d0_c1b0_0000,
                0x7f00_0000_0000,
                0x7f20_0000_0000,
                0x7ffd_1a00_0000
            ]
        );
    }

    #[test]
    fn the_page_for_old_system_calls_is_not_user_memory() {
        assert_eq!(
            starts(|mapping| !mapping.is_user_memory()),
            [0xffff_ffff_ff60_0000]
        );
    }

    #[test]
    fn other_text_is_refused() {
        assert!(parse(b"7f00-7f01 rw-p\n").is_err());
        assert!(parse(b"7f00 rw-p 0 00:00 0 \n").is_err());
    }

    #[test]
    fn this_process_has_a_stack_and_a_program() {
        let own = of_process(std::process::id().cast_signed()).unwrap();
        assert!(own.iter().any(|mapping| mapping.name == "[stack]"));
        assert!(own.iter().any(|mapping| mapping.permissions == *b"r-xp"));
    }
}
