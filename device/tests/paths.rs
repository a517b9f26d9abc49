// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What Landlock leaves of the file system, seen from inside: a process that closes its paths as the device does, and then
//! tries.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::Command,
};

use vhost_user_hmm::sandbox::{Sandbox, SeccompMode};

/// Set in the process that tries: the folder to try it in.
const FOLDER: &str = "HMM_PATHS_TEST";

/// A path that is of no use any more, and what was tried with it.
type Attempt = (&'static str, fn(&Path) -> io::Result<()>);

/// What needs a path. Each works until paths are closed, and may be done again and again.
const ATTEMPTS: &[Attempt] = &[
    ("read a file", |at| File::open(at.join("file")).map(drop)),
    ("write a file", |at| {
        OpenOptions::new()
            .write(true)
            .open(at.join("file"))
            .map(drop)
    }),
    ("shorten a file", |at| {
        let path = std::ffi::CString::new(at.join("file").into_os_string().into_encoded_bytes())?;
        // SAFETY: the path ends with a zero.
        match unsafe { libc::truncate(path.as_ptr(), 1) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }),
    ("list a folder", |at| fs::read_dir(at).map(drop)),
    ("make a file", |at| {
        File::create_new(at.join("new"))?;
        fs::remove_file(at.join("new"))
    }),
    ("make a folder", |at| {
        fs::create_dir(at.join("folder"))?;
        fs::remove_dir(at.join("folder"))
    }),
    ("make a link", |at| {
        std::os::unix::fs::symlink("file", at.join("link"))?;
        fs::remove_file(at.join("link"))
    }),
    ("rename a file", |at| {
        fs::rename(at.join("file"), at.join("other"))?;
        fs::rename(at.join("other"), at.join("file"))
    }),
    ("run a program", |_| {
        Command::new("/bin/true").status().map(drop)
    }),
    ("read another process's account", |_| {
        fs::read("/proc/1/status").map(drop)
    }),
];

/// Whether the kernel has Landlock.
fn has_landlock() -> bool {
    const VERSION: libc::c_ulong = 1;
    // SAFETY: asking for the version takes no attributes.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<libc::c_void>(),
            0usize,
            VERSION,
        )
    };
    version > 0
}

/// Not a test on its own: what `paths_are_closed` runs.
#[test]
fn child() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else {
        return;
    };
    let sockets = folder.join("sockets");
    for (what, attempt) in ATTEMPTS {
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
        folders: vec![sockets.clone()],
    };
    sandbox.close_paths().expect("closed");
    let attempts = move || {
        for (what, attempt) in ATTEMPTS {
            for place in [&folder, &sockets] {
                let error = attempt(place).expect_err(what);
                assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{what}");
            }
        }
        (folder, sockets)
    };
    // The same in this thread's children.
    let (folder, sockets) = std::thread::spawn(attempts).join().expect("all refused");
    let error = fs::remove_file(folder.join("file")).expect_err("not a socket's folder");
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    // What is left: to remove one's own sockets, and to use what is open.
    fs::remove_file(sockets.join("file")).expect("a socket's folder");
    let mut text = String::new();
    open.read_to_string(&mut text).expect("it is open");
    assert_eq!(text, "t");
    open.write_all(b"more").expect("it is open");
}

#[test]
fn paths_are_closed() {
    if !has_landlock() {
        // Not through the test's captured output: nobody would see it.
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
        fs::write(place.join("file"), "text").expect("a file");
    }
    let output = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "child", "--test-threads", "1", "--nocapture"])
        .env(FOLDER, folder.path())
        .output()
        .expect("it starts");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{}: {errors}", output.status);
    assert!(!sockets.join("file").exists());
    let text = fs::read_to_string(folder.path().join("file")).expect("still there");
    assert_eq!(text, "tmore");
}
