// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Paths below a root folder, followed as a process with that root would.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

/// As many links in one path as Linux follows.
const MAX_LINKS: usize = 40;

/// A root folder: `/` or an unpacked system.
#[derive(Debug, Clone)]
pub(super) struct Root(PathBuf);

/// Where a path leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resolved {
    /// The file or folder itself, without a link on the way.
    pub(super) path: PathBuf,
    /// The links that were followed, with what each of them says.
    pub(super) links: Vec<(PathBuf, PathBuf)>,
}

impl Root {
    pub(super) fn new(folder: &Path) -> Self {
        Self(folder.to_owned())
    }

    /// A path inside, as this process sees it.
    pub(super) fn outside(&self, inside: &Path) -> PathBuf {
        self.0.join(inside.strip_prefix("/").unwrap_or(inside))
    }

    /// Follows an absolute path.
    pub(super) fn resolve(&self, inside: &Path) -> io::Result<Resolved> {
        let mut path = PathBuf::from("/");
        let mut links = Vec::new();
        let mut left: Vec<OsString> = parts(inside);
        while let Some(name) = left.pop() {
            if name == ".." {
                path.pop();
                continue;
            }
            let next = path.join(&name);
            if !fs::symlink_metadata(self.outside(&next))?
                .file_type()
                .is_symlink()
            {
                path = next;
                continue;
            }
            if links.len() >= MAX_LINKS {
                return Err(io::Error::other("too many levels of symbolic links"));
            }
            let target = fs::read_link(self.outside(&next))?;
            if target.is_absolute() {
                path = PathBuf::from("/");
            }
            left.extend(parts(&target));
            links.push((next, target));
        }
        Ok(Resolved { path, links })
    }
}

/// The names of a path, the first one last.
fn parts(path: &Path) -> Vec<OsString> {
    path.components()
        .rev()
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
        .map(|part| part.as_os_str().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_followed_below_the_root() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("usr/lib/arch")).unwrap();
        fs::write(at("usr/lib/arch/libc.so.6"), "").unwrap();
        symlink("usr/lib", at("lib")).unwrap();
        symlink("/lib/arch/../arch/libc.so.6", at("usr/lib/libc.so")).unwrap();
        let resolved = Root::new(folder.path())
            .resolve(Path::new("/lib/libc.so"))
            .unwrap();
        assert_eq!(resolved.path, Path::new("/usr/lib/arch/libc.so.6"));
        let expected = [
            ("/lib", "usr/lib"),
            ("/usr/lib/libc.so", "/lib/arch/../arch/libc.so.6"),
            ("/lib", "usr/lib"),
        ];
        assert_eq!(
            resolved.links,
            expected.map(|(link, target)| (link.into(), target.into()))
        );
    }

    #[test]
    fn a_circle_is_an_error_and_the_root_has_no_parent() {
        let folder = tempfile::tempdir().unwrap();
        symlink("b", folder.path().join("a")).unwrap();
        symlink("a", folder.path().join("b")).unwrap();
        let root = Root::new(folder.path());
        assert!(root.resolve(Path::new("/a")).is_err());
        assert_eq!(
            root.resolve(Path::new("/../..")).unwrap().path,
            Path::new("/")
        );
    }
}
