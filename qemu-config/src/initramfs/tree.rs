// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is in an image.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use super::newc::{Header, Writer, kind};

/// Files, folders and links by their path in the guest. Folders above an entry come by themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    entries: BTreeMap<PathBuf, Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    Folder,
    /// A file of the host, read when the image is written.
    HostFile(PathBuf),
    Bytes {
        content: Vec<u8>,
        permissions: u32,
    },
    Symlink(PathBuf),
    CharacterDevice {
        major: u32,
        minor: u32,
    },
}

/// Why a tree could not be made or written.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// A path in the guest that is not absolute or has `..` in it.
    #[error("{} is not a path in the guest: it has to be absolute and without \"..\"", .0.display())]
    Path(PathBuf),
    /// Two things want the same place.
    #[error("{} would be two different things in the guest's image", .0.display())]
    Conflict(PathBuf),
    /// A file could not be read, or the image could not be written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl TreeError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}

impl Tree {
    /// Adds a folder.
    ///
    /// # Errors
    /// When the path is no path in the guest, or is taken by something else; so for all that adds.
    pub fn folder(&mut self, guest: impl AsRef<Path>) -> Result<&mut Self, TreeError> {
        self.insert(guest.as_ref(), Entry::Folder)
    }

    /// Adds a copy of a host's file with its permissions and its time.
    ///
    /// # Errors
    /// As [`Tree::folder`].
    pub fn host_file(
        &mut self,
        guest: impl AsRef<Path>,
        host: impl Into<PathBuf>,
    ) -> Result<&mut Self, TreeError> {
        self.insert(guest.as_ref(), Entry::HostFile(host.into()))
    }

    /// Adds a file with this content.
    ///
    /// # Errors
    /// As [`Tree::folder`].
    pub fn bytes(
        &mut self,
        guest: impl AsRef<Path>,
        content: impl Into<Vec<u8>>,
        permissions: u32,
    ) -> Result<&mut Self, TreeError> {
        let content = content.into();
        self.insert(
            guest.as_ref(),
            Entry::Bytes {
                content,
                permissions,
            },
        )
    }

    /// Adds a symbolic link.
    ///
    /// # Errors
    /// As [`Tree::folder`].
    pub fn symlink(
        &mut self,
        guest: impl AsRef<Path>,
        target: impl Into<PathBuf>,
    ) -> Result<&mut Self, TreeError> {
        self.insert(guest.as_ref(), Entry::Symlink(target.into()))
    }

    /// Adds a character device's node.
    ///
    /// # Errors
    /// As [`Tree::folder`].
    pub fn character_device(
        &mut self,
        guest: impl AsRef<Path>,
        major: u32,
        minor: u32,
    ) -> Result<&mut Self, TreeError> {
        self.insert(guest.as_ref(), Entry::CharacterDevice { major, minor })
    }

    /// Adds everything of another tree.
    ///
    /// # Errors
    /// As [`Tree::folder`].
    pub fn extend(&mut self, other: &Self) -> Result<&mut Self, TreeError> {
        for (path, entry) in &other.entries {
            self.insert_at(path.clone(), entry.clone())?;
        }
        Ok(self)
    }

    /// Whether there is something under this path.
    #[must_use]
    pub fn contains(&self, guest: impl AsRef<Path>) -> bool {
        inside(guest.as_ref()).is_ok_and(|path| self.entries.contains_key(&path))
    }

    fn insert(&mut self, guest: &Path, entry: Entry) -> Result<&mut Self, TreeError> {
        let path = inside(guest)?;
        self.insert_at(path, entry)?;
        Ok(self)
    }

    fn insert_at(&mut self, path: PathBuf, entry: Entry) -> Result<(), TreeError> {
        if path.as_os_str().is_empty() {
            // The root itself is there in any case.
            return Ok(());
        }
        for parent in path
            .ancestors()
            .skip(1)
            .filter(|parent| !parent.as_os_str().is_empty())
        {
            let there = self
                .entries
                .entry(parent.to_owned())
                .or_insert(Entry::Folder);
            if *there != Entry::Folder {
                return Err(TreeError::Conflict(Path::new("/").join(parent)));
            }
        }
        match self.entries.get(&path) {
            Some(there) if *there != entry => Err(TreeError::Conflict(Path::new("/").join(path))),
            Some(_) => Ok(()),
            None => {
                self.entries.insert(path, entry);
                Ok(())
            }
        }
    }

    /// Writes the image.
    ///
    /// # Errors
    /// When a host's file cannot be read or the image cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), TreeError> {
        let out = File::create(path).map_err(TreeError::io(path))?;
        let mut writer = Writer::new(io::BufWriter::with_capacity(1 << 20, out));
        // The order of the map puts each folder before what is in it.
        for (name, entry) in &self.entries {
            let source = match entry {
                Entry::HostFile(host) => host,
                _ => path,
            };
            entry
                .write(name, &mut writer)
                .map_err(TreeError::io(source))?;
        }
        writer.finish().map_err(TreeError::io(path))?;
        Ok(())
    }
}

impl Entry {
    fn write<W: Write>(&self, name: &Path, writer: &mut Writer<W>) -> io::Result<()> {
        let header = |mode| Header {
            mode,
            ..Header::default()
        };
        match self {
            Self::Folder => writer.entry(name, header(kind::FOLDER | 0o755), 0, &mut io::empty()),
            Self::HostFile(host) => {
                let mut file = File::open(host)?;
                let metadata = file.metadata()?;
                let header = Header {
                    mode: kind::FILE | (metadata.permissions().mode() & 0o7777),
                    // Compiled Python, for one, compares times.
                    mtime: u32::try_from(metadata.mtime()).unwrap_or(0),
                    device: (0, 0),
                };
                writer.entry(name, header, metadata.len(), &mut file)
            }
            Self::Bytes {
                content,
                permissions,
            } => writer.entry(
                name,
                header(kind::FILE | permissions),
                content.len() as u64,
                &mut content.as_slice(),
            ),
            Self::Symlink(target) => {
                let target = target.as_os_str().as_bytes();
                writer.entry(
                    name,
                    header(kind::SYMLINK | 0o777),
                    target.len() as u64,
                    &mut &*target,
                )
            }
            Self::CharacterDevice { major, minor } => {
                let header = Header {
                    mode: kind::CHARACTER_DEVICE | 0o600,
                    mtime: 0,
                    device: (*major, *minor),
                };
                writer.entry(name, header, 0, &mut io::empty())
            }
        }
    }
}

/// The path without its leading slash.
fn inside(guest: &Path) -> Result<PathBuf, TreeError> {
    let error = || TreeError::Path(guest.to_owned());
    let mut path = PathBuf::new();
    let mut components = guest.components();
    if components.next() != Some(Component::RootDir) {
        return Err(error());
    }
    for component in components {
        match component {
            Component::Normal(name) => path.push(name),
            Component::CurDir => {}
            _ => return Err(error()),
        }
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn paths_have_to_be_in_the_guest() {
        for path in ["relative", "/a/../b"] {
            assert!(
                matches!(Tree::default().folder(path), Err(TreeError::Path(_))),
                "{path}"
            );
        }
    }

    #[test]
    fn the_same_thing_twice_is_fine_and_two_things_are_not() {
        let mut tree = Tree::default();
        tree.symlink("/bin", "usr/bin")
            .unwrap()
            .symlink("/bin", "usr/bin")
            .unwrap();
        assert!(matches!(
            tree.symlink("/bin", "sbin"),
            Err(TreeError::Conflict(_))
        ));
        assert!(matches!(
            tree.bytes("/bin/sh", "", 0o755),
            Err(TreeError::Conflict(_))
        ));
    }

    /// Name, mode and content of each entry, read as the format's description says.
    fn entries(image: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut rest = image;
        let mut entries = Vec::new();
        loop {
            assert_eq!(&rest[..6], b"070701");
            let field = |number: usize| {
                let start = 6 + 8 * number;
                let text = std::str::from_utf8(&rest[start..start + 8]).unwrap();
                usize::from_str_radix(text, 16).unwrap()
            };
            let (mode, size, name_size) = (field(1), field(6), field(11));
            let name = String::from_utf8(rest[110..110 + name_size - 1].to_vec()).unwrap();
            if name == "TRAILER!!!" {
                return entries;
            }
            let start = (110 + name_size).next_multiple_of(4);
            let content = rest[start..start + size].to_vec();
            entries.push((name, u32::try_from(mode).unwrap(), content));
            rest = &rest[(start + size).next_multiple_of(4)..];
        }
    }

    #[test]
    fn an_image_has_every_entry_after_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let host = folder.path().join("host");
        fs::write(&host, b"from the host").unwrap();
        fs::set_permissions(&host, fs::Permissions::from_mode(0o750)).unwrap();
        let mut tree = Tree::default();
        tree.host_file("/usr/bin/tool", &host).unwrap();
        tree.symlink("/bin", "usr/bin").unwrap();
        tree.bytes("/etc/plan", "content", 0o644).unwrap();
        tree.character_device("/dev/console", 5, 1).unwrap();
        let image = folder.path().join("image");
        tree.write(&image).unwrap();
        let entries = entries(&fs::read(&image).unwrap());
        let expected = [
            ("bin", 0o120_777, &b"usr/bin"[..]),
            ("dev", 0o040_755, b""),
            ("dev/console", 0o020_600, b""),
            ("etc", 0o040_755, b""),
            ("etc/plan", 0o100_644, b"content"),
            ("usr", 0o040_755, b""),
            ("usr/bin", 0o040_755, b""),
            ("usr/bin/tool", 0o100_750, b"from the host"),
        ];
        let expected =
            expected.map(|(name, mode, content)| (name.to_owned(), mode, content.to_vec()));
        assert_eq!(entries, expected);
    }
}
