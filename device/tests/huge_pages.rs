// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Device memory on huge pages: reserved ones, files on hugetlbfs, files on a tmpfs that gives them unasked. Each needs
//! something of the host that only root can give; where it cannot be had, that is said.

use std::{
    ffi::CStr,
    io::{self, Write},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use hmm_front_end::{DATA, FrontEnd, Layout, Process, pattern};
use hmm_protocol::{ControlKind, ControlRequest, CopyEntry, Op, PageList, Status};
use rustix::{
    mm::{MapFlags, ProtFlags, mmap_anonymous, munmap},
    mount::{MountFlags, MountPropagationFlags, mount, mount_change},
    thread::{UnshareFlags, unshare_unsafe},
};
use zerocopy::IntoBytes;

const PROGRAM: &str = env!("CARGO_BIN_EXE_vhost-user-hmm");
const RESERVED: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
/// Device memory and one page for a memory file's identity.
const PAGES: u64 = 9;
const MEMORY_BYTES: u64 = (PAGES - 1) * (2 << 20);

/// Says among the results that a test did not run.
fn skipped(test: &str, reason: &str) {
    let _ = writeln!(io::stderr(), "SKIPPED {test}: {reason}");
}

/// Huge pages that are the host's for the time of a test.
struct Reservation {
    before: u64,
    /// The number is the host's, so there is one reservation at a time.
    _alone: MutexGuard<'static, ()>,
}

impl Reservation {
    fn new(pages: u64) -> Result<Self, String> {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let before = read_number().map_err(|error| format!("no huge pages here: {error}"))?;
        std::fs::write(RESERVED, (before + pages).to_string())
            .map_err(|error| format!("huge pages cannot be reserved: {error}"))?;
        let reservation = Self {
            before,
            _alone: alone,
        };
        match read_number() {
            Ok(now) if now >= before + pages => Ok(reservation),
            Ok(now) => Err(format!(
                "the host has {now} huge pages, not {}",
                before + pages
            )),
            Err(error) => Err(format!("no huge pages here: {error}")),
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let _ = std::fs::write(RESERVED, self.before.to_string());
    }
}

fn read_number() -> io::Result<u64> {
    let text = std::fs::read_to_string(RESERVED)?;
    text.trim().parse().map_err(io::Error::other)
}

/// Mounts a file system at `folder`, for this thread and the processes that it starts alone.
fn mount_here(folder: &Path, kind: &str, options: &CStr) -> Result<(), String> {
    // SAFETY: no descriptor or memory changes hands; this thread's view of the file system becomes its own.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }
        .and_then(|()| {
            mount_change(
                "/",
                MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
            )
        })
        .and_then(|()| mount("none", folder, kind, MountFlags::empty(), options))
        .map_err(|error| format!("{kind} cannot be mounted: {error}"))
}

/// Writes, reads, discards and adopts, and looks at what backs the memory. `restart` starts the device again, if its
/// memory outlives it.
fn exercise(arguments: &[&str], kind: &str, survives: bool) {
    let memory = MEMORY_BYTES.to_string();
    let arguments = [&["--memory", memory.as_str(), "--prefault"], arguments].concat();
    let process = Process::start(PROGRAM, &arguments);
    let mut front_end = FrontEnd::start(&process.socket(), 1, &Layout::default());
    let generation = front_end.open();
    let backing = &process.command_ok(r#"{"command":"info"}"#)["backing"];
    assert_eq!(backing["kind"], kind);
    assert_eq!(backing["resident_bytes"], MEMORY_BYTES, "{backing}");
    assert_eq!(backing["huge_bytes"], MEMORY_BYTES, "{backing}");
    let stats = process.command_ok(r#"{"command":"stats"}"#);
    assert_eq!(&stats["stats"]["backing"], backing);
    let bytes = pattern(5, 2 << 20);
    front_end.guest.write(DATA, &bytes);
    let device_address = MEMORY_BYTES - (2 << 20);
    let there = CopyEntry::new(Op::ToDevice, DATA, device_address, 2 << 20);
    assert_eq!(front_end.run(&[there]).status(), Status::Ok);
    // Scattered pages of the guest from one extent.
    let list = PageList::new(Op::ToSystem, 12, device_address);
    let addresses: Vec<u64> = (0..512).map(|page| DATA + (511 - page) * 4096).collect();
    let request = front_end.page_list(Default::default(), &list, &addresses);
    assert_eq!(front_end.execute(&request).status(), Status::Ok);
    let back: Vec<u8> = bytes.rchunks(4096).flatten().copied().collect();
    assert!(front_end.guest.read(DATA, 2 << 20) == back);
    // A driver that leaves finds it again; one that starts afresh does not.
    front_end.reboot();
    assert_eq!(front_end.adopt(generation), Status::Ok);
    let mut process = process;
    if survives {
        drop(process.kill());
        drop(front_end);
        process = Process::start(PROGRAM, &arguments);
        front_end = FrontEnd::start(&process.socket(), 1, &Layout::default());
        assert_eq!(front_end.adopt(generation), Status::Ok);
    }
    let home = CopyEntry::new(Op::ToSystem, DATA, device_address, 2 << 20);
    assert_eq!(front_end.run(&[home]).status(), Status::Ok);
    assert!(front_end.guest.read(DATA, 2 << 20) == bytes);
    front_end.open();
    assert_eq!(front_end.run(&[home]).status(), Status::Ok);
    assert!(
        front_end
            .guest
            .read(DATA, 2 << 20)
            .iter()
            .all(|byte| *byte == 0)
    );
}

#[test]
fn reserved_pages_back_it() {
    match Reservation::new(PAGES) {
        Ok(_reserved) => exercise(&["--hugetlb", "2M"], "hugetlb", false),
        Err(reason) => skipped("reserved_pages_back_it", &reason),
    }
}

/// Whether the host lets this process have `bytes` bytes of its huge pages, on top of what others have reserved.
fn can_reserve(bytes: u64) -> bool {
    let flags = MapFlags::PRIVATE | MapFlags::HUGETLB | MapFlags::HUGE_2MB;
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: without MAP_FIXED the kernel picks a range that nothing uses, and it is given back untouched.
    unsafe {
        match mmap_anonymous(std::ptr::null_mut(), bytes as usize, protection, flags) {
            Ok(start) => {
                munmap(start, bytes as usize).expect("unmapped");
                true
            }
            Err(_) => false,
        }
    }
}

#[test]
fn discarded_memory_keeps_its_reservation() {
    let _reserved = match Reservation::new(PAGES - 1) {
        Ok(reserved) if reserved.before == 0 => reserved,
        Ok(_) => {
            return skipped(
                "discarded_memory_keeps_its_reservation",
                "others have pages",
            );
        }
        Err(reason) => return skipped("discarded_memory_keeps_its_reservation", &reason),
    };
    assert!(can_reserve(MEMORY_BYTES), "the pages are free");
    let memory = MEMORY_BYTES.to_string();
    let process = Process::start(PROGRAM, &["--memory", &memory, "--hugetlb", "2M"]);
    let mut front_end = FrontEnd::start(&process.socket(), 1, &Layout::default());
    front_end.open();
    assert!(!can_reserve(2 << 20), "the device has all of them");
    let fill = |front_end: &mut FrontEnd, pattern: u64| {
        let entries: Vec<CopyEntry> = (0..MEMORY_BYTES >> 21)
            .map(|page| CopyEntry::new(Op::Fill, pattern, page << 21, 2 << 20))
            .collect();
        assert_eq!(front_end.run(&entries).status(), Status::Ok);
    };
    fill(&mut front_end, u64::MAX);
    let discard = ControlRequest::new(ControlKind::Discard, 0, 1, 0, MEMORY_BYTES);
    let (reply, _) = front_end.control(discard.as_bytes());
    assert_eq!(reply.status, Status::Ok.to_wire());
    assert!(!can_reserve(2 << 20), "pages were given away by DISCARD");
    fill(&mut front_end, u64::MAX);
    front_end.open();
    assert!(!can_reserve(2 << 20), "pages were given away by a session");
    let home = CopyEntry::new(Op::ToSystem, DATA, MEMORY_BYTES - (2 << 20), 2 << 20);
    assert_eq!(front_end.run(&[home]).status(), Status::Ok);
    let bytes = front_end.guest.read(DATA, 2 << 20);
    assert!(bytes.iter().all(|byte| *byte == 0));
}

#[test]
fn pages_of_a_gigabyte_are_mapped_aligned() {
    let number = "/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages";
    let Ok(before) = std::fs::read_to_string(number) else {
        return skipped(
            "pages_of_a_gigabyte_are_mapped_aligned",
            "this kernel has none",
        );
    };
    // The host may have none to give. Then the kernel says so, and says nothing of the address, which it looks at first.
    let reserved = std::fs::write(number, "1")
        .and_then(|()| std::fs::read_to_string(number))
        .is_ok_and(|now| now.trim() != "0");
    let folder = tempfile::tempdir().expect("a folder");
    if reserved {
        let process = Process::start(PROGRAM, &["--memory", "1G", "--hugetlb", "1G"]);
        let mut front_end = FrontEnd::start(&process.socket(), 1, &Layout::default());
        front_end.open();
        let fill = CopyEntry::new(Op::Fill, 7, (1 << 30) - 4096, 4096);
        assert_eq!(front_end.run(&[fill]).status(), Status::Ok);
    } else {
        let output = std::process::Command::new(PROGRAM)
            .args(["--memory", "1G", "--hugetlb", "1G", "--socket-path"])
            .arg(folder.path().join("socket"))
            .output()
            .expect("the program starts");
        assert!(!output.status.success());
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(errors.contains("Cannot allocate memory"), "{errors}");
    }
    let _ = std::fs::write(number, before);
}

#[test]
fn a_file_on_hugetlbfs_backs_it_and_survives() {
    let folder = tempfile::tempdir().expect("a folder");
    let ready = Reservation::new(PAGES).and_then(|reserved| {
        mount_here(folder.path(), "hugetlbfs", c"pagesize=2M")?;
        Ok(reserved)
    });
    match ready {
        Ok(_reserved) => {
            let file = folder.path().join("memory");
            let file = file.to_str().expect("UTF-8");
            exercise(&["--memory-file", file], "file", true);
            std::fs::remove_file(file).expect("it is there");
        }
        Err(reason) => skipped("a_file_on_hugetlbfs_backs_it_and_survives", &reason),
    }
}

#[test]
fn a_file_on_a_huge_tmpfs_backs_it_and_survives() {
    let folder = tempfile::tempdir().expect("a folder");
    match mount_here(folder.path(), "tmpfs", c"huge=always,size=64M") {
        Ok(()) => {
            let file = folder.path().join("memory");
            exercise(
                &["--memory-file", file.to_str().expect("UTF-8")],
                "file",
                true,
            );
        }
        Err(reason) => skipped("a_file_on_a_huge_tmpfs_backs_it_and_survives", &reason),
    }
}
