// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What Landlock leaves of the file system and of other processes, seen from inside: a process that closes its paths as the
//! device does, and then tries. And that the device's sockets are removed at its end all the same.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpListener,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixListener, UnixStream},
            process::CommandExt,
        },
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process_group};
use vhost_user_hmm::sandbox::{Sandbox, SeccompMode};

/// Set in the process that tries: the folder to try it in.
const FOLDER: &str = "HMM_PATHS_TEST";
/// Set there too: the path of a socket that the parent listens on, which is also the name of one without a path.
const OUTSIDE: &str = "HMM_PATHS_OUTSIDE";

/// What is tried, and the version of Landlock since which it is refused.
type Attempt = (&'static str, i64, fn(&Path) -> io::Result<()>);

/// What needs a path. Each works until paths are closed, and may be done again and again.
const ATTEMPTS: &[Attempt] = &[
    ("read a file", 1, |at| File::open(at.join("file")).map(drop)),
    ("write a file", 1, |at| {
        OpenOptions::new()
            .write(true)
            .open(at.join("file"))
            .map(drop)
    }),
    ("shorten a file", 3, |at| {
        let path = std::ffi::CString::new(at.join("file").into_os_string().into_encoded_bytes())?;
        // SAFETY: the path ends with a zero.
        match unsafe { libc::truncate(path.as_ptr(), 1) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }),
    ("list a folder", 1, |at| fs::read_dir(at).map(drop)),
    ("make a file", 1, |at| {
        File::create_new(at.join("new"))?;
        fs::remove_file(at.join("new"))
    }),
    ("make a folder", 1, |at| {
        fs::create_dir(at.join("folder"))?;
        fs::remove_dir(at.join("folder"))
    }),
    ("make a link", 1, |at| {
        std::os::unix::fs::symlink("file", at.join("link"))?;
        fs::remove_file(at.join("link"))
    }),
    ("rename a file", 1, |at| {
        fs::rename(at.join("file"), at.join("other"))?;
        fs::rename(at.join("other"), at.join("file"))
    }),
    ("run a program", 1, |_| {
        Command::new("/bin/true").status().map(drop)
    }),
    ("read another process's account", 1, |_| {
        fs::read("/proc/1/status").map(drop)
    }),
    ("remove a file", 1, |at| {
        fs::remove_file(at.join("old"))?;
        fs::write(at.join("old"), "text")
    }),
    ("listen for the network", 4, |_| {
        TcpListener::bind("127.0.0.1:0").map(drop)
    }),
    ("reach another process without a path", 6, |_| {
        UnixStream::connect_addr(&outside()?).map(drop)
    }),
    ("signal another process", 6, |_| {
        // SAFETY: signal 0 is none, and the call takes no pointers.
        match unsafe { libc::kill(std::os::unix::process::parent_id() as i32, 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }),
    ("reach another process by a path", 9, |_| {
        UnixStream::connect(&std::env::var(OUTSIDE).map_err(io::Error::other)?).map(drop)
    }),
];

/// A socket without a path that the parent listens on.
fn outside() -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(std::env::var(OUTSIDE).map_err(io::Error::other)?)
}

/// The version of the kernel's Landlock; none is below 1.
fn landlock_version() -> i64 {
    const VERSION: libc::c_ulong = 1;
    // SAFETY: asking for the version takes no attributes.
    unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<libc::c_void>(),
            0usize,
            VERSION,
        )
    }
}

/// Not a test on its own: what `paths_are_closed` runs.
#[test]
fn child() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else {
        return;
    };
    let sockets = folder.join("sockets");
    for (what, _, attempt) in ATTEMPTS {
        for place in [&folder, &sockets] {
            attempt(place).unwrap_or_else(|error| panic!("cannot {what} at first: {error}"));
        }
    }
    let mut open = OpenOptions::new()
        .read(true)
        .write(true)
        .open(folder.join("file"))
        .expect("a file");
    let sandbox = Sandbox {
        seccomp: SeccompMode::Off,
        landlock: true,
    };
    sandbox.close_paths().expect("closed");
    let attempts = move || {
        let version = landlock_version();
        for (what, _, attempt) in ATTEMPTS.iter().filter(|(_, since, _)| version >= *since) {
            for place in [&folder, &sockets] {
                let error = attempt(place).expect_err(what);
                assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{what}");
            }
        }
    };
    // The same in this thread's children.
    std::thread::spawn(attempts).join().expect("all refused");
    // What is left: to use what is open.
    let mut text = String::new();
    open.read_to_string(&mut text).expect("it is open");
    assert_eq!(text, "t");
    open.write_all(b"more").expect("it is open");
}

#[test]
fn paths_are_closed() {
    if landlock_version() < 1 {
        // Not through the captured output, which is not shown for a test that passes.
        let _ = writeln!(
            io::stderr(),
            "SKIPPED paths_are_closed: this kernel has no Landlock"
        );
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let sockets = folder.path().join("sockets");
    fs::create_dir(&sockets).expect("a folder");
    for place in [folder.path(), &sockets] {
        for file in ["file", "old"] {
            fs::write(place.join(file), "text").expect("a file");
        }
    }
    let outside = folder.path().join("outside");
    let _by_path = UnixListener::bind(&outside).expect("a socket");
    let by_name = SocketAddr::from_abstract_name(outside.as_os_str().as_bytes()).expect("a name");
    let _by_name = UnixListener::bind_addr(&by_name).expect("a socket");
    let output = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "child", "--test-threads", "1", "--nocapture"])
        .env(FOLDER, folder.path())
        .env(OUTSIDE, &outside)
        .output()
        .expect("it starts");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{}: {errors}", output.status);
    let text = fs::read_to_string(folder.path().join("file")).expect("still there");
    assert_eq!(text, "tmore");
}

#[test]
fn sockets_are_removed_when_every_process_of_the_device_is_told_to_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let neighbour = folder.path().join("neighbour");
    fs::write(&neighbour, "text").expect("a file");
    for signal in [Signal::TERM, Signal::INT] {
        let sockets = ["socket", "control"].map(|name| folder.path().join(name));
        let mut child = Command::new(env!("CARGO_BIN_EXE_vhost-user-hmm"))
            .arg("--socket-path")
            .arg(&sockets[0])
            .arg("--control-socket")
            .arg(&sockets[1])
            .args(["--memory", "2M", "--log-level", "warn"])
            .process_group(0)
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped"))
            .read_line(&mut line)
            .expect("a line");
        assert!(sockets.iter().all(|socket| socket.exists()), "{line}");
        // As a terminal does, and systemd.
        kill_process_group(Pid::from_child(&child), signal).expect("it runs");
        assert_eq!(child.wait().expect("its end").code(), Some(0));
        let left: Vec<_> = sockets.iter().filter(|socket| socket.exists()).collect();
        assert!(left.is_empty(), "left behind: {left:?}");
    }
    assert!(neighbour.exists());
}
