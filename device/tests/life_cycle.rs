// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Drivers, guests and front ends come and go; the device stays.

use std::{
    io::{BufRead, BufReader},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{
            net::{UnixListener, UnixStream},
            process::CommandExt,
        },
    },
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use hmm_front_end::{DATA, FrontEnd, Layout, MOST_QUEUES, Process, pattern};
use hmm_protocol::{BULK_QUEUE_FIRST, BatchFlags, CopyEntry, EventKind, Features, Op, Status};
use rustix::process::Signal;
use vhost::{
    VhostBackend,
    vhost_user::{Frontend, VhostUserFrontend},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_vhost-user-hmm");

fn start() -> (Process, FrontEnd) {
    let process = Process::start(PROGRAM, &["--memory", "16M"]);
    let mut front_end = FrontEnd::start(&process.socket(), 1, &Layout::default());
    front_end.open();
    (process, front_end)
}

fn put(front_end: &mut FrontEnd, bytes: &[u8]) {
    front_end.guest.write(DATA, bytes);
    let entry = CopyEntry::new(Op::ToDevice, DATA, 0, bytes.len() as u32);
    assert_eq!(front_end.run(&[entry]).status(), Status::Ok);
}

fn get(front_end: &mut FrontEnd, len: usize) -> Vec<u8> {
    front_end.guest.write(DATA, &vec![0xdd; len]);
    let entry = CopyEntry::new(Op::ToSystem, DATA, 0, len as u32);
    assert_eq!(front_end.run(&[entry]).status(), Status::Ok);
    front_end.guest.read(DATA, len)
}

#[test]
fn fifty_reboots_leave_it_serving() {
    let (_process, mut front_end) = start();
    for round in 0..50u64 {
        put(&mut front_end, &pattern(round, 65536));
        let before = front_end.generation;
        front_end.reboot();
        let fill = [CopyEntry::new(Op::Fill, 0, 0, 8)];
        assert_eq!(front_end.run(&fill).status(), Status::NoSession);
        let after = front_end.open();
        assert_ne!(before, after, "round {round}");
        assert!(get(&mut front_end, 65536).iter().all(|byte| *byte == 0));
    }
}

/// What QEMU does when it stops the guest's processors and lets them go on.
fn stop_and_go_on(front_end: &mut FrontEnd) {
    let bases: Vec<u16> = (0..front_end.rings.len())
        .map(|index| {
            let base = front_end.frontend.get_vring_base(index);
            u16::try_from(base.expect("vring base")).expect("a position")
        })
        .collect();
    let features = front_end.negotiated().0;
    front_end.frontend.set_features(features).expect("features");
    for (index, base) in bases.into_iter().enumerate() {
        front_end.continue_ring(index, base);
    }
}

#[test]
fn a_guest_that_is_stopped_and_goes_on_keeps_its_session() {
    let (process, mut front_end) = start();
    let bytes = pattern(3, 8192);
    put(&mut front_end, &bytes);
    // What waits meanwhile is served without another kick.
    process.command_ok(r#"{"command":"fault-add","fault":{"action":"stall","queue":"bulk0"}}"#);
    let fill = [CopyEntry::new(Op::Fill, 0, 1 << 20, 4096)];
    let request = front_end.entries(BatchFlags::default(), &fill);
    let record = front_end.submit(BULK_QUEUE_FIRST, &request, 0);
    front_end.rings[usize::from(BULK_QUEUE_FIRST)].kick();
    for _ in 0..3 {
        stop_and_go_on(&mut front_end);
    }
    process.command_ok(r#"{"command":"fault-clear"}"#);
    let answer = front_end.answer(BULK_QUEUE_FIRST, record, 0);
    assert_eq!(answer.status(), Status::Ok);
    assert_eq!(get(&mut front_end, bytes.len()), bytes);
    // A driver that starts is another one, as ever.
    front_end.reboot();
    assert_eq!(front_end.run(&fill).status(), Status::NoSession);
}

#[test]
fn a_driver_that_reloads_adopts_its_contents() {
    let (_process, mut front_end) = start();
    let bytes = pattern(1, 65536);
    put(&mut front_end, &bytes);
    let generation = front_end.generation;
    front_end.reboot();
    assert_eq!(front_end.adopt(generation ^ 1), Status::StaleGeneration);
    let fill = [CopyEntry::new(Op::Fill, 0, 0, 8)];
    assert_eq!(front_end.run(&fill).status(), Status::NoSession);
    assert_eq!(front_end.adopt(generation), Status::Ok);
    assert_eq!(front_end.generation, generation);
    assert_eq!(get(&mut front_end, 65536), bytes);
}

#[test]
fn another_front_end_finds_the_contents_of_the_last() {
    let process = Process::start(PROGRAM, &["--memory", "16M", "--keep-contents"]);
    let mut front_end = FrontEnd::start(&process.socket(), 1, &Layout::default());
    front_end.open();
    let bytes = pattern(2, 65536);
    put(&mut front_end, &bytes);
    let generation = front_end.generation;
    for _ in 0..5 {
        drop(front_end);
        front_end = FrontEnd::start(&process.socket(), 1, &Layout::flat(32 << 20));
        assert_eq!(front_end.config().generation.get(), generation);
        assert_eq!(front_end.adopt(generation), Status::Ok);
        assert_eq!(get(&mut front_end, 65536), bytes);
    }
    let info = process.command_ok(r#"{"command":"stats"}"#);
    assert_eq!(info["stats"]["device"]["connections"], 6);
}

#[test]
fn a_front_end_that_goes_leaves_nothing() {
    let (process, mut front_end) = start();
    put(&mut front_end, &pattern(2, 65536));
    let generation = front_end.generation;
    drop(front_end);
    let mut front_end = FrontEnd::start(&process.socket(), 1, &Layout::flat(32 << 20));
    assert_ne!(front_end.config().generation.get(), generation);
    assert_eq!(front_end.adopt(generation), Status::StaleGeneration);
    // Its key went with it.
    let next = front_end.config().generation.get();
    assert_eq!(front_end.adopt(next), Status::StaleGeneration);
    front_end.open();
    assert!(get(&mut front_end, 65536).iter().all(|byte| *byte == 0));
}

/// Looked at from the host, before any other session is opened.
#[test]
fn a_memory_file_is_scrubbed_with_the_front_end_unless_it_is_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    for keep in [false, true] {
        let path = folder.path().join(format!("keep-{keep}"));
        let path = path.to_str().expect("UTF-8");
        let mut arguments = vec!["--memory", "16M", "--memory-file", path];
        arguments.extend(keep.then_some("--keep-contents"));
        let process = Process::start(PROGRAM, &arguments);
        let mut front_end = FrontEnd::start(&process.socket(), 1, &Layout::default());
        let generation = front_end.open();
        let bytes = pattern(4, 65536);
        put(&mut front_end, &bytes);
        let held = || std::fs::read(path).expect("the memory file")[..bytes.len()].to_vec();
        assert_eq!(held(), bytes);
        drop(front_end);
        // The next front end is served when the device has let go of the last.
        let mut front_end = FrontEnd::start(&process.socket(), 1, &Layout::default());
        assert_eq!(held() == bytes, keep);
        assert!(keep || held().iter().all(|byte| *byte == 0));
        let adopted = front_end.adopt(generation);
        assert_eq!(adopted == Status::Ok, keep, "{adopted:?}");
    }
}

/// Every guest reads generation and uuid in the configuration space; the key is not there.
#[test]
fn contents_are_adopted_with_their_key_alone() {
    let process = Process::start(PROGRAM, &["--memory", "16M", "--keep-contents"]);
    let start = |key| {
        let mut front_end = FrontEnd::start(&process.socket(), 1, &Layout::default());
        front_end.key = key;
        front_end
    };
    let mut owner = start([7; 16]);
    let generation = owner.open();
    let bytes = pattern(2, 65536);
    put(&mut owner, &bytes);
    drop(owner);
    let mut close = [7; 16];
    close[15] ^= 1;
    for key in [[0; 16], close] {
        let mut other = start(key);
        assert_eq!(other.config().generation.get(), generation);
        assert_eq!(other.adopt(generation), Status::StaleGeneration, "{key:?}");
        let home = [CopyEntry::new(Op::ToSystem, DATA, 0, 65536)];
        other.generation = generation;
        assert_eq!(other.run(&home).status(), Status::NoSession);
    }
    let mut owner = start([7; 16]);
    assert_eq!(owner.adopt(generation), Status::Ok);
    assert_eq!(get(&mut owner, 65536), bytes);
    drop(owner);
    // A driver that chose no key cannot come back, and neither can one that knows of no keys.
    let mut keyless = start([0; 16]);
    let generation = keyless.open();
    keyless.reboot();
    assert_eq!(keyless.adopt(generation), Status::StaleGeneration);
    drop(keyless);
    let frontend = Frontend::connect(process.socket(), MOST_QUEUES).expect("the device accepts");
    let without = !Features::SESSION_KEY.0;
    let mut old = FrontEnd::start_on(frontend, 1, &Layout::default(), without);
    let generation = old.open();
    put(&mut old, &bytes);
    old.reboot();
    assert_eq!(old.adopt(generation), Status::StaleGeneration);
    old.open();
    assert!(get(&mut old, 65536).iter().all(|byte| *byte == 0));
}

#[test]
fn a_front_end_that_only_looks_in_is_no_harm() {
    let process = Process::start(PROGRAM, &[]);
    for _ in 0..20 {
        drop(UnixStream::connect(process.socket()).expect("connect"));
    }
    let mut front_end = FrontEnd::start(&process.socket(), 1, &Layout::flat(32 << 20));
    front_end.open();
    put(&mut front_end, &[7; 64]);
}

#[test]
fn memory_that_left_the_table_is_refused_and_may_come_back() {
    let (_process, mut front_end) = start();
    let far = 1u64 << 32;
    let entry = [CopyEntry::new(Op::ToDevice, far, 0, 4096)];
    assert_eq!(front_end.run(&entry).status(), Status::Ok);
    let region = front_end.guest.regions()[2];
    for _ in 0..10 {
        front_end
            .frontend
            .remove_mem_region(&region)
            .expect("removed");
        assert_eq!(front_end.run(&entry).status(), Status::BadGuestAddress);
        front_end.frontend.add_mem_region(&region).expect("added");
        assert_eq!(front_end.run(&entry).status(), Status::Ok);
    }
}

#[test]
fn the_memory_table_changes_under_running_batches() {
    let (_process, mut front_end) = start();
    let region = front_end.guest.regions()[2];
    let entries: Vec<CopyEntry> = (0..16)
        .map(|index| CopyEntry::new(Op::ToDevice, DATA, (index % 8) << 20, 1 << 20))
        .collect();
    for _ in 0..20 {
        let request = front_end.entries(BatchFlags::default(), &entries);
        let record = front_end.submit(BULK_QUEUE_FIRST, &request, 0);
        front_end.rings[usize::from(BULK_QUEUE_FIRST)].kick();
        front_end
            .frontend
            .remove_mem_region(&region)
            .expect("removed");
        front_end.frontend.add_mem_region(&region).expect("added");
        let answer = front_end.answer(BULK_QUEUE_FIRST, record, 0);
        assert_eq!(answer.status(), Status::Ok, "its memory never left");
    }
}

#[test]
fn a_stopped_queue_has_no_batch_half_done() {
    let (_process, mut front_end) = start();
    let queue = usize::from(BULK_QUEUE_FIRST);
    let entries = [CopyEntry::new(Op::ToSystem, DATA, 0, 2 << 20); 8];
    for _ in 0..20 {
        let request = front_end.entries(BatchFlags::default(), &entries);
        let record = front_end.submit(BULK_QUEUE_FIRST, &request, 0);
        front_end.rings[queue].kick();
        use vhost::VhostBackend;
        let base = front_end.frontend.get_vring_base(queue).expect("base");
        // Whatever the device took, it has finished; what it did not take, it will not touch.
        let used = front_end.rings[queue].used_index(&front_end.guest);
        assert_eq!(base, u32::from(used));
        let status = front_end.guest.load_u8(record);
        assert_eq!(status, used as u8, "done if taken");
        let before = pattern(7, 4096);
        front_end.guest.write(DATA, &before);
        thread::sleep(Duration::from_millis(2));
        assert_eq!(front_end.guest.read(DATA, 4096), before);
        front_end.start_queue(queue);
    }
}

#[test]
fn contents_in_a_file_survive_a_crash_and_an_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("memory");
    let arguments = [
        "--memory",
        "16M",
        "--memory-file",
        file.to_str().expect("UTF-8"),
    ];
    let bytes = pattern(3, 65536);
    let process = Process::start(PROGRAM, &arguments);
    let mut front_end = FrontEnd::start(&process.socket(), 1, &Layout::default());
    let generation = front_end.open();
    let uuid = front_end.config().uuid;
    put(&mut front_end, &bytes);
    drop(process.kill());
    drop(front_end);
    let process = Process::start(PROGRAM, &arguments);
    let mut front_end = FrontEnd::start(&process.socket(), 1, &Layout::default());
    assert_eq!(front_end.config().uuid, uuid);
    assert_eq!(front_end.adopt(generation), Status::Ok);
    assert_eq!(get(&mut front_end, 65536), bytes);
    // In this order: a front end that leaves first takes its contents with it.
    drop(process.end());
    drop(front_end);
    let process = Process::start(PROGRAM, &arguments);
    let mut front_end = FrontEnd::start(&process.socket(), 1, &Layout::default());
    assert_eq!(front_end.adopt(generation), Status::Ok);
    assert_eq!(get(&mut front_end, 65536), bytes);
    // A new owner sees nothing of it.
    front_end.reboot();
    let next = front_end.open();
    assert_ne!(next, generation);
    assert!(get(&mut front_end, 65536).iter().all(|byte| *byte == 0));
    drop(process.kill());
    drop(front_end);
    let process = Process::start(PROGRAM, &arguments);
    let mut front_end = FrontEnd::start(&process.socket(), 1, &Layout::default());
    assert_eq!(front_end.adopt(generation), Status::StaleGeneration);
    assert_eq!(front_end.adopt(next), Status::Ok);
}

#[test]
fn fifty_deaths_in_the_middle_of_a_batch_leave_it_serving() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("memory");
    let arguments = [
        "--memory",
        "16M",
        "--memory-file",
        file.to_str().expect("UTF-8"),
    ];
    let mut place = tempfile::tempdir().expect("a folder");
    let mut kept: Option<(u64, Vec<u8>)> = None;
    for round in 0..50u64 {
        // The same sockets each time: those of the dead are replaced.
        let process = Process::start_in(PROGRAM, place, &arguments);
        let mut front_end = FrontEnd::start(&process.socket(), 1, &Layout::default());
        if let Some((generation, bytes)) = &kept {
            assert_eq!(front_end.adopt(*generation), Status::Ok, "round {round}");
            assert!(get(&mut front_end, bytes.len()) == *bytes, "round {round}");
        } else {
            front_end.open();
        }
        let bytes = pattern(round, 65536);
        put(&mut front_end, &bytes);
        kept = Some((front_end.generation, bytes));
        // A guest that reboots in between, and one whose batches run when the device dies.
        if round % 3 == 0 {
            front_end.reboot();
            assert_eq!(front_end.adopt(front_end.generation), Status::Ok);
        }
        let entries = [CopyEntry::new(Op::ToDevice, DATA, 8 << 20, 2 << 20); 16];
        let request = front_end.entries(BatchFlags::default(), &entries);
        front_end.submit(BULK_QUEUE_FIRST, &request, 0);
        front_end.rings[usize::from(BULK_QUEUE_FIRST)].kick();
        place = process.kill();
    }
}

#[test]
fn anonymous_memory_is_never_mistaken_for_an_earlier_one() {
    let (process, mut front_end) = start();
    let (generation, uuid) = (front_end.generation, front_end.config().uuid);
    let folder = process.kill();
    drop(front_end);
    // The socket of the dead is replaced.
    let process = Process::start_in(PROGRAM, folder, &["--memory", "16M"]);
    let mut front_end = FrontEnd::start(&process.socket(), 1, &Layout::default());
    assert_ne!(front_end.config().uuid, uuid);
    assert_eq!(front_end.adopt(generation), Status::StaleGeneration);
}

#[test]
fn renewing_loses_contents_and_tells_the_driver() {
    let (process, mut front_end) = start();
    put(&mut front_end, &[9; 4096]);
    let at = front_end.post_event_buffer(0);
    let answer = process.command_ok(r#"{"command":"renew"}"#);
    let event = front_end.event(at);
    assert_eq!(event.kind, EventKind::Generation as u8);
    assert_eq!(event.value.get(), answer["generation"]);
    assert_eq!(event.generation, event.value);
    let fill = [CopyEntry::new(Op::Fill, 0, 0, 8)];
    assert_eq!(front_end.run(&fill).status(), Status::NoSession);
    assert_eq!(front_end.adopt(event.value.get()), Status::Ok);
    assert!(get(&mut front_end, 4096).iter().all(|byte| *byte == 0));
}

#[test]
fn sigterm_ends_it_quickly_idle_and_busy() {
    let (mut process, mut front_end) = start();
    process.signal(Signal::TERM);
    assert_eq!(process.wait().code(), Some(0));
    assert!(!process.socket().exists(), "the socket is left behind");
    assert!(!process.path("control").exists());
    drop(front_end);

    let (mut process, busy) = start();
    front_end = busy;
    let entries = [CopyEntry::new(Op::ToSystem, DATA, 0, 2 << 20); 32];
    for _ in 0..2 {
        let request = front_end.entries(BatchFlags::default(), &entries);
        front_end.submit(BULK_QUEUE_FIRST, &request, 0);
    }
    front_end.rings[usize::from(BULK_QUEUE_FIRST)].kick();
    process.signal(Signal::TERM);
    assert_eq!(process.wait().code(), Some(0));

    let mut process = Process::start(PROGRAM, &[]);
    process.signal(Signal::INT);
    assert_eq!(process.wait().code(), Some(0));
}

#[test]
fn exit_on_disconnect_ends_it_with_its_front_end() {
    let mut process = Process::start(PROGRAM, &["--exit-on-disconnect"]);
    let front_end = FrontEnd::start(&process.socket(), 1, &Layout::flat(32 << 20));
    assert!(process.is_running());
    drop(front_end);
    assert_eq!(process.wait().code(), Some(0));
}

/// Starts the program with `descriptor` inherited as 5, and waits until it listens.
fn with_inherited(descriptor: OwnedFd) -> std::process::Child {
    let raw = descriptor.as_raw_fd();
    let mut command = Command::new(PROGRAM);
    command
        .args(["--fd", "5", "--log-level", "warn", "--memory", "16M"])
        .stdout(Stdio::piped());
    // SAFETY: dup2 is async-signal-safe, and `raw` is open until the command has started.
    unsafe {
        command.pre_exec(move || {
            if libc::dup2(raw, 5) < 0 {
                return Err(std::io::Error::last_os_error());
            }
            if raw == 5 {
                libc::fcntl(5, libc::F_SETFD, 0);
            }
            Ok(())
        });
    }
    let mut child = command.spawn().expect("the program starts");
    drop(descriptor);
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().expect("piped"))
        .read_line(&mut line)
        .expect("a line");
    assert_eq!(line, "listening on descriptor 5\n");
    child
}

#[test]
fn an_inherited_connection_is_served_and_then_it_ends() {
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    let mut child = with_inherited(theirs.into());
    let frontend = Frontend::from_stream(ours, 19);
    let mut front_end = FrontEnd::start_on(frontend, 1, &Layout::default(), u64::MAX);
    front_end.open();
    let bytes = pattern(4, 1 << 20);
    put(&mut front_end, &bytes);
    assert_eq!(get(&mut front_end, 1 << 20), bytes);
    drop(front_end);
    assert_eq!(child.wait().expect("wait").code(), Some(0));
}

#[test]
fn an_inherited_listener_is_served() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("socket");
    let mut child = with_inherited(UnixListener::bind(&path).expect("bind").into());
    for _ in 0..2 {
        let mut front_end = FrontEnd::start(&path, 1, &Layout::default());
        front_end.open();
        put(&mut front_end, &[1; 64]);
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, Signal::TERM).expect("kill");
    assert_eq!(child.wait().expect("wait").code(), Some(0));
}

#[test]
fn front_ends_leave_no_descriptor_and_no_thread_behind() {
    // Without a sandbox: a confined process does not show its descriptors.
    let process = Process::start(
        PROGRAM,
        &[
            "--memory",
            "16M",
            "--bulk-queues",
            "4",
            "--executors",
            "2",
            "--seccomp",
            "off",
            "--landlock",
            "off",
        ],
    );
    let count = |what: &str| {
        std::fs::read_dir(format!("/proc/{}/{what}", process.pid()))
            .expect("the process's account")
            .count()
    };
    let settled = || {
        // Its threads end a moment after the connection.
        let started = std::time::Instant::now();
        // The main thread and the executors stay.
        while count("task") > 1 + 2 {
            assert!(started.elapsed() < Duration::from_secs(60), "threads stay");
            thread::sleep(Duration::from_millis(1));
        }
        count("fd")
    };
    let before = settled();
    for _ in 0..30 {
        let mut front_end = FrontEnd::start(&process.socket(), 4, &Layout::default());
        front_end.open();
        drop(front_end);
    }
    assert_eq!(settled(), before);
}
