// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where the loader looks for libraries.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::rooted::Root;

/// The loader's own folders on x86-64, Debian's first.
const DEFAULT: [&str; 6] = [
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/lib",
];
/// What the loader reads instead of the configuration, made from it by ldconfig.
pub(super) const CACHE: &str = "/etc/ld.so.cache";
const CONFIGURATION: &str = "/etc/ld.so.conf";
/// A configuration that includes itself must not be read for ever.
const MAX_INCLUDES: usize = 100;

/// The folders that every program shares.
#[derive(Debug)]
pub(super) struct LibraryFolders(Vec<PathBuf>);

impl LibraryFolders {
    /// Those of the system in `root`.
    pub(super) fn of(root: &Root) -> Self {
        let mut folders = Vec::new();
        let mut files = vec![PathBuf::from(CONFIGURATION)];
        let mut read = 0;
        while let Some(file) = files.pop() {
            read += 1;
            if read > MAX_INCLUDES {
                break;
            }
            // A system without a configuration has the default folders.
            let Ok(text) = fs::read_to_string(root.outside(&file)) else {
                continue;
            };
            for line in text.lines() {
                let line = line.split('#').next().unwrap_or_default().trim();
                if let Some(pattern) = line.strip_prefix("include ") {
                    let pattern = file.parent().unwrap_or(Path::new("/")).join(pattern.trim());
                    files.extend(matching(root, &pattern));
                } else if line.starts_with('/') {
                    folders.push(PathBuf::from(line));
                }
            }
        }
        folders.extend(DEFAULT.map(PathBuf::from));
        Self(folders)
    }

    /// Finds a library: in `first`, then in the shared folders. A name with a slash is a path already.
    pub(super) fn find<'a>(
        &'a self,
        root: &Root,
        name: &OsStr,
        first: impl Iterator<Item = &'a Path>,
    ) -> Option<PathBuf> {
        let there = |path: &PathBuf| {
            let resolved = root.resolve(path);
            resolved.is_ok_and(|resolved| root.outside(&resolved.path).is_file())
        };
        if name.as_bytes().contains(&b'/') {
            return Some(PathBuf::from(name)).filter(there);
        }
        first
            .chain(self.0.iter().map(PathBuf::as_path))
            .map(|folder| folder.join(name))
            .find(there)
    }
}

/// The files that a pattern with stars in its last part means, in order.
fn matching(root: &Root, pattern: &Path) -> Vec<PathBuf> {
    let (Some(folder), Some(name)) = (pattern.parent(), pattern.file_name()) else {
        return Vec::new();
    };
    let pieces: Vec<&[u8]> = name.as_bytes().split(|byte| *byte == b'*').collect();
    let Ok(entries) = fs::read_dir(root.outside(folder)) else {
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.file_name())
        .filter(|entry| fits(entry.as_bytes(), &pieces))
        .map(|entry| folder.join(entry))
        .collect();
    files.sort();
    files
}

/// Whether a name consists of these pieces with anything between them.
fn fits(name: &[u8], pieces: &[&[u8]]) -> bool {
    let [first, middle @ .., last] = pieces else {
        return pieces.first().is_some_and(|only| *only == name);
    };
    let Some(mut rest) = name
        .strip_prefix(*first)
        .and_then(|rest| rest.strip_suffix(*last))
    else {
        return false;
    };
    for piece in middle {
        let Some(place) = (0..=rest.len()).find(|place| rest[*place..].starts_with(piece)) else {
            return false;
        };
        rest = &rest[place + piece.len()..];
    }
    true
}

/// A folder of a program's own search path, with the loader's variables filled in.
pub(super) fn expanded(folder: &OsStr, origin: &Path) -> PathBuf {
    let mut text = folder.as_bytes().to_vec();
    for (variable, value) in [
        ("ORIGIN", origin.as_os_str().as_bytes()),
        ("LIB", b"lib/x86_64-linux-gnu"),
        ("PLATFORM", b"x86_64"),
    ] {
        for form in [format!("${{{variable}}}"), format!("${variable}")] {
            text = replaced(&text, form.as_bytes(), value);
        }
    }
    OsString::from_vec(text).into()
}

fn replaced(text: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut result = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix(from) {
            result.extend_from_slice(to);
            rest = after;
        } else {
            result.push(rest[0]);
            rest = &rest[1..];
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_and_its_includes_come_before_the_defaults() {
        let folder = tempfile::tempdir().unwrap();
        let etc = folder.path().join("etc");
        fs::create_dir_all(etc.join("ld.so.conf.d")).unwrap();
        fs::write(etc.join("ld.so.conf"), "include ld.so.conf.d/*.conf\n").unwrap();
        fs::write(
            etc.join("ld.so.conf.d/blas.conf"),
            "# why\n/opt/blas # here\n",
        )
        .unwrap();
        fs::write(etc.join("ld.so.conf.d/other.txt"), "/not/read\n").unwrap();
        for library in [
            "opt/blas/libblas.so.3",
            "usr/lib/libblas.so.3",
            "usr/lib/libz.so.1",
        ] {
            let path = folder.path().join(library);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let root = Root::new(folder.path());
        let folders = LibraryFolders::of(&root);
        let find = |name: &str, first: &[&str]| {
            folders.find(&root, OsStr::new(name), first.iter().map(Path::new))
        };
        assert_eq!(
            find("libblas.so.3", &[]),
            Some("/opt/blas/libblas.so.3".into())
        );
        assert_eq!(
            find("libblas.so.3", &["/usr/lib"]),
            Some("/usr/lib/libblas.so.3".into())
        );
        assert_eq!(
            find("libz.so.1", &["/nowhere"]),
            Some("/usr/lib/libz.so.1".into())
        );
        assert_eq!(
            find("/opt/blas/libblas.so.3", &[]),
            Some("/opt/blas/libblas.so.3".into())
        );
        assert_eq!(find("libmissing.so", &[]), None);
    }

    #[test]
    fn a_configuration_that_includes_itself_is_read_to_an_end() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("etc")).unwrap();
        fs::write(
            folder.path().join("etc/ld.so.conf"),
            "include ld.so.*\n/opt/x\n",
        )
        .unwrap();
        let folders = LibraryFolders::of(&Root::new(folder.path()));
        assert!(folders.0.contains(&PathBuf::from("/opt/x")));
    }

    #[test]
    fn the_loader_s_variables_are_filled_in() {
        let origin = Path::new("/opt/app/bin");
        assert_eq!(
            expanded(OsStr::new("$ORIGIN/../lib"), origin),
            Path::new("/opt/app/bin/../lib")
        );
        assert_eq!(
            expanded(OsStr::new("/x/${LIB}"), origin),
            Path::new("/x/lib/x86_64-linux-gnu")
        );
    }

    #[test]
    fn stars_stand_for_anything() {
        let fit = |name: &str, pattern: &str| {
            let pieces: Vec<&[u8]> = pattern.as_bytes().split(|byte| *byte == b'*').collect();
            fits(name.as_bytes(), &pieces)
        };
        assert!(
            fit("a.conf", "*.conf")
                && fit("a.conf", "a.conf")
                && fit("abc", "a*c")
                && fit("axbyc", "a*b*c")
        );
        assert!(!fit("a.conf~", "*.conf") && !fit("ab", "a*b*b") && !fit("b.conf", "a.conf"));
    }
}
