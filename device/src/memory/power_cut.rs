// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The host loses power at any moment of a memory file's life. What a driver can adopt afterwards is whole, byte for byte;
//! everything else is refused, and reads as zero.
//!
//! The test keeps a model of the disk. The kernel may write a page back at any time, so that a page that was changed may be
//! there as it was when it was last synced, as it is now, or as it was at any look in between. The page of a record may
//! also be torn. At each look the test makes files from such choices and opens them in another boot of the host.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    fs::File,
    os::{fd::AsRawFd, unix::fs::FileExt},
    path::{Path, PathBuf},
};

use hmm_protocol::SessionKey;
use rustix::fs::{MemfdFlags, memfd_create};

use super::DeviceMemory;

const BYTES: u64 = 4 << 20;
const PAGE: u64 = 4096;
/// Pages of the memory in which the test writes.
const WRITTEN: [u64; 4] = [0, 3, 511, 1023];
/// The boot in which files are opened after a cut.
const AFTER_CUT: [u8; 16] = [9; 16];
/// Random choices of data pages a cut, beside the systematic ones.
const RANDOM_CHOICES: u64 = 6;

type Page = Vec<u8>;
type Image = BTreeMap<u64, Page>;
/// An owner of contents, as a driver knows it.
type Owner = (u64, SessionKey);

thread_local! {
    static BOOT: Cell<Option<[u8; 16]>> = const { Cell::new(None) };
    static DISK: RefCell<Option<Disk>> = const { RefCell::new(None) };
}

/// The boot of the host that this thread pretends to be in.
pub(super) fn boot() -> Option<[u8; 16]> {
    BOOT.get()
}

/// These bytes of the file are in storage.
pub(super) fn synced(start: u64, bytes: u64) {
    with_disk(|disk| {
        disk.look();
        disk.synced(start, bytes);
    });
}

/// Does something with the model, except for a file that is opened after a cut.
fn with_disk(run: impl FnOnce(&mut Disk)) {
    if boot() != Some(AFTER_CUT) {
        DISK.with_borrow_mut(|disk| disk.as_mut().map(run));
    }
}

/// What may be in storage.
struct Disk {
    path: PathBuf,
    /// For each page, what it was when it was last synced, and all that it has been since. A page that is not here is zero.
    versions: BTreeMap<u64, Vec<Page>>,
    owners: Vec<Owner>,
    cuts: Cuts,
}

/// What came of the cuts so far.
#[derive(Default)]
struct Cuts {
    files: u64,
    adopted: u64,
    refused: u64,
}

impl Disk {
    /// Looks at the file, and cuts the power at this moment in many ways.
    fn look(&mut self) {
        let now = image(&self.path);
        let known: Vec<u64> = self.versions.keys().copied().collect();
        for page in now.keys().copied().chain(known) {
            let contents = now.get(&page).cloned().unwrap_or_else(zeros);
            let versions = (self.versions.entry(page)).or_insert_with(|| vec![zeros()]);
            if versions.last() != Some(&contents) {
                versions.push(contents);
            }
        }
        self.cut(&now);
    }

    fn synced(&mut self, start: u64, bytes: u64) {
        for (page, versions) in &mut self.versions {
            if (start..start + bytes).contains(&(page * PAGE)) {
                versions.drain(..versions.len() - 1);
            }
        }
    }

    fn cut(&mut self, now: &Image) {
        let open: Vec<(u64, usize)> = (self.versions.iter())
            .filter(|(_, versions)| versions.len() > 1)
            .map(|(page, versions)| (*page, versions.len()))
            .collect();
        let (records, data): (Vec<_>, Vec<_>) =
            open.into_iter().partition(|(page, _)| page * PAGE >= BYTES);
        for record in self.records(&records) {
            for choice in choices(&data) {
                let mut image = self.settled();
                for (page, version) in &choice {
                    image.insert(*page, self.versions[page][*version].clone());
                }
                image.extend(record.clone());
                self.start_again(&image, now);
            }
        }
    }

    /// The pages of which one version is possible.
    fn settled(&self) -> Image {
        (self.versions.iter())
            .map(|(page, versions)| (*page, versions[versions.len() - 1].clone()))
            .collect()
    }

    /// All that the pages of records may be: each version, and each mixture of a version and the next.
    fn records(&self, open: &[(u64, usize)]) -> Vec<Image> {
        let mut images = vec![Image::new()];
        for (page, _) in open {
            let versions = &self.versions[page];
            let mut possible = versions.clone();
            for pair in versions.windows(2) {
                for torn in (8..96).step_by(8) {
                    possible.push([&pair[1][..torn], &pair[0][torn..]].concat());
                    possible.push([&pair[0][..torn], &pair[1][torn..]].concat());
                }
            }
            images = (images.iter())
                .flat_map(|image| {
                    possible.iter().map(|contents| {
                        let mut image = image.clone();
                        image.insert(*page, contents.clone());
                        image
                    })
                })
                .collect();
        }
        images
    }

    /// Opens a file with these pages in another boot.
    fn start_again(&mut self, image: &Image, live: &Image) {
        let file = memory_file();
        let length = std::fs::metadata(&self.path).expect("the file").len();
        file.set_len(length).expect("the length");
        for (page, contents) in image {
            file.write_all_at(contents, page * PAGE).expect("a page");
        }
        let before = BOOT.replace(Some(AFTER_CUT));
        let memory = DeviceMemory::in_file(&path_of(&file), BYTES).expect("memory");
        BOOT.set(before);
        let adopted =
            (self.owners.iter()).any(|(generation, key)| memory.belongs_to(*generation, *key));
        // All others are zero in both.
        let pages = image.keys().chain(live.keys());
        for page in pages.copied().filter(|page| page * PAGE < BYTES) {
            let found = read(&memory, page);
            match live.get(&page) {
                Some(contents) if adopted => {
                    assert!(
                        found == *contents,
                        "page {page} is not what its owner wrote"
                    );
                }
                _ => assert!(found == zeros(), "page {page} has contents of others"),
            }
        }
        self.cuts.files += 1;
        match adopted {
            true => self.cuts.adopted += 1,
            false => self.cuts.refused += 1,
        }
    }
}

/// Which version each of these pages has: all old, all new, one new, one old, and some at random.
fn choices(open: &[(u64, usize)]) -> Vec<Vec<(u64, usize)>> {
    let all = |version: &dyn Fn(usize, usize) -> usize| -> Vec<(u64, usize)> {
        (open.iter().enumerate())
            .map(|(index, (page, count))| (*page, version(index, *count)))
            .collect()
    };
    let mut choices = vec![all(&|_, count| count - 1)];
    if open.is_empty() {
        return choices;
    }
    choices.push(all(&|_, _| 0));
    for one in 0..open.len() {
        choices.push(all(&|index, count| {
            if index == one { count - 1 } else { 0 }
        }));
        choices.push(all(&|index, count| {
            if index == one { 0 } else { count - 1 }
        }));
    }
    for seed in 0..RANDOM_CHOICES {
        choices.push(all(&|index, count| {
            let mixed = (seed * 64 + index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            (mixed >> 32) as usize % count
        }));
    }
    choices
}

fn zeros() -> Page {
    vec![0; PAGE as usize]
}

/// The pages of a file that are not zero.
fn image(path: &Path) -> Image {
    let bytes = std::fs::read(path).expect("the file");
    (0..)
        .zip(bytes.chunks(PAGE as usize))
        .filter(|(_, page)| page.iter().any(|byte| *byte != 0))
        .map(|(number, page)| (number, page.to_vec()))
        .collect()
}

fn read(memory: &DeviceMemory, page: u64) -> Page {
    let at = memory.at(page * PAGE, PAGE).expect("in range");
    let mut contents = zeros();
    // SAFETY: `at` points to a mapped page, `contents` is as long, and this test has one thread.
    unsafe { std::ptr::copy_nonoverlapping(at, contents.as_mut_ptr(), PAGE as usize) };
    contents
}

fn write(memory: &DeviceMemory, value: u8) {
    memory.hand_out();
    for (page, value) in WRITTEN.into_iter().zip(value..) {
        let at = memory.at(page * PAGE, PAGE).expect("in range");
        // SAFETY: `at` points to a mapped page, and this test has one thread.
        unsafe { std::ptr::write_bytes(at, value, PAGE as usize) };
    }
    look();
}

fn look() {
    with_disk(Disk::look);
}

/// The path of an open file, which needs none of its own.
fn path_of(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

fn memory_file() -> File {
    memfd_create("power-cut", MemfdFlags::CLOEXEC)
        .expect("a file")
        .into()
}

/// A driver opens a session: it learns the generation and knows the key.
fn open_session(memory: &DeviceMemory, key: u8) {
    let key = [key; 16];
    let generation = memory.renew(Some(key)).expect("renew");
    with_disk(|disk| disk.owners.push((generation, key)));
}

/// A process of the device opens the file in boot `number`.
fn start(path: &Path, number: u8) -> DeviceMemory {
    BOOT.set(Some([number; 16]));
    DeviceMemory::in_file(path, BYTES).expect("memory")
}

#[test]
fn contents_are_whole_or_refused_after_a_power_cut() {
    let file = memory_file();
    let path = path_of(&file);
    DISK.set(Some(Disk {
        path: path.clone(),
        versions: BTreeMap::new(),
        owners: Vec::new(),
        cuts: Cuts::default(),
    }));

    // Two sessions, and an end in order.
    let memory = start(&path, 1);
    open_session(&memory, 1);
    write(&memory, 10);
    open_session(&memory, 2);
    write(&memory, 20);
    write(&memory, 30);
    memory.close().expect("close");
    look();
    drop(memory);
    // The next process goes on with them, and ends in order.
    let memory = start(&path, 1);
    write(&memory, 40);
    memory.close().expect("close");
    look();
    drop(memory);
    // The next one is killed, and the one after it goes on in the same boot.
    let memory = start(&path, 1);
    write(&memory, 50);
    drop(memory);
    let memory = start(&path, 1);
    write(&memory, 60);
    memory.close().expect("close");
    drop(memory);
    // Another boot goes on with what was closed, and ends without an end.
    let memory = start(&path, 2);
    write(&memory, 70);
    drop(memory);
    // So the boot after it has to give the contents up.
    let memory = start(&path, 3);
    open_session(&memory, 3);
    write(&memory, 80);
    memory.close().expect("close");
    look();
    drop(memory);

    BOOT.set(None);
    let cuts = DISK.take().expect("the disk").cuts;
    // Both come out, and often.
    assert!(
        cuts.adopted > 20 && cuts.refused > 1000,
        "{} of {} were adopted",
        cuts.adopted,
        cuts.files
    );
}
