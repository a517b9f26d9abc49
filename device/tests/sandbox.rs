// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the process has given up. All other tests run under the same list of system calls.

use std::{
    io::{BufRead, BufReader},
    os::unix::{
        fs::MetadataExt,
        process::{CommandExt, ExitStatusExt},
    },
    process::{Command, ExitStatus, Stdio},
};

use hmm_front_end::{FrontEnd, Layout, Process};
use vhost_user_hmm::sandbox::{Sandbox, SeccompMode};

const PROGRAM: &str = env!("CARGO_BIN_EXE_vhost-user-hmm");
/// Set in the processes that try something forbidden: what to try.
const TRY: &str = "HMM_SANDBOX_TEST";

#[test]
fn every_thread_is_confined() {
    let process = Process::start(PROGRAM, &["--memory", "16M", "--bulk-queues", "3"]);
    let mut front_end = FrontEnd::start(&process.socket(), 3, &Layout::default());
    front_end.open();
    let tasks = std::fs::read_dir(format!("/proc/{}/task", process.pid())).expect("threads");
    let mut threads = 0;
    for task in tasks {
        let path = task.expect("a thread").path().join("status");
        let status = std::fs::read_to_string(path).expect("its status");
        let field = |name: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .unwrap_or_else(|| panic!("no {name}"))
                .trim()
                .to_owned()
        };
        assert_eq!(field("Seccomp"), "2", "{status}");
        assert_eq!(field("NoNewPrivs"), "1", "{status}");
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(field(set), "0000000000000000", "{status}");
        }
        threads += 1;
    }
    // The main thread, the front end's two, and four workers.
    assert!(threads >= 6, "{threads} threads");
    let limits =
        std::fs::read_to_string(format!("/proc/{}/limits", process.pid())).expect("limits");
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .expect("a limit");
    assert!(core.contains(" 0 "), "{core}");
}

#[test]
fn the_list_can_be_logged_or_left_out() {
    for (mode, expected) in [("log", "2"), ("off", "0")] {
        let process = Process::start(PROGRAM, &["--seccomp", mode, "--landlock", "off"]);
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", process.pid())).expect("its status");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("Seccomp:"))
            .expect("a line");
        assert_eq!(line.trim(), expected, "--seccomp {mode}");
    }
}

/// Runs `attempt` in a process of its own under the list.
fn in_child(attempt: &str) -> ExitStatus {
    child_command(attempt).status().expect("it starts")
}

fn child_command(attempt: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command
        .args(["--exact", "child", "--test-threads", "1", "--nocapture"])
        .env(TRY, attempt)
        .stdout(Stdio::null());
    command
}

/// Not a test on its own: what `in_child` runs.
#[test]
fn child() {
    let Ok(attempt) = std::env::var(TRY) else {
        return;
    };
    let parent = std::os::unix::process::parent_id();
    let sandbox = Sandbox {
        seccomp: SeccompMode::Kill,
        landlock: false,
    };
    sandbox.close_paths().expect("closed");
    sandbox.close_system_calls().expect("closed");
    let failed = |result: libc::c_long| {
        let error = std::io::Error::last_os_error().raw_os_error();
        (result == -1).then_some(error).flatten()
    };
    // SAFETY: each call below is given sound arguments; most do not return.
    let result = unsafe {
        match attempt.as_str() {
            "nothing" => 0,
            "getppid" => libc::syscall(libc::SYS_getppid),
            "fork" => libc::c_long::from(libc::fork()),
            "execve" => {
                let path = c"/bin/true";
                let arguments = [path.as_ptr(), std::ptr::null()];
                libc::c_long::from(libc::execv(path.as_ptr(), arguments.as_ptr()))
            }
            "internet" => libc::c_long::from(libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0)),
            "code" => {
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
                let rights = libc::PROT_READ | libc::PROT_EXEC;
                libc::mmap(std::ptr::null_mut(), 4096, rights, flags, -1, 0) as libc::c_long
            }
            "terminal" => libc::c_long::from(libc::ioctl(0, libc::TIOCSTI, c"x".as_ptr())),
            "unix socket" => libc::c_long::from(libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM, 0)),
            "connect" => libc::c_long::from(libc::connect(-1, std::ptr::null(), 0)),
            "remove" => libc::c_long::from(libc::unlink(c"/nonexistent/file".as_ptr())),
            // Signal 0 is none; whether one may be sent is checked all the same.
            "signal another" => libc::syscall(libc::SYS_tgkill, parent, parent, 0),
            "signal itself" => libc::syscall(
                libc::SYS_tgkill,
                libc::getpid(),
                libc::syscall(libc::SYS_gettid),
                0,
            ),
            "ptrace" => libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0),
            "open" => {
                let opened = libc::open(c"/etc/passwd".as_ptr(), libc::O_RDONLY);
                assert_eq!(failed(opened.into()), Some(libc::EACCES));
                0
            }
            "panic" => {
                vhost_user_hmm::end::end_on_panic();
                let _ = std::thread::spawn(|| panic!("on purpose")).join();
                0
            }
            "thread" => {
                let answer = std::thread::spawn(|| 7).join().expect("a thread");
                libc::c_long::from(answer) - 7
            }
            other => panic!("unknown attempt {other}"),
        }
    };
    assert_eq!(result, 0);
}

#[test]
fn what_is_not_on_the_list_ends_the_process() {
    for attempt in [
        "getppid",
        "fork",
        "execve",
        "internet",
        "unix socket",
        "connect",
        "remove",
        "signal another",
        "code",
        "terminal",
        "ptrace",
    ] {
        let status = in_child(attempt);
        assert_eq!(status.signal(), Some(libc::SIGSYS), "{attempt}: {status}");
    }
}

#[test]
fn a_panic_has_its_own_exit_code_within_the_list() {
    let output = child_command("panic")
        .env("RUST_BACKTRACE", "full")
        .output()
        .expect("it starts");
    assert_eq!(output.status.code(), Some(70), "{}", output.status);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(errors.contains("on purpose"), "{errors}");
}

#[test]
fn what_is_on_the_list_goes_on() {
    for attempt in ["nothing", "open", "thread", "signal itself"] {
        let status = in_child(attempt);
        assert!(status.success(), "{attempt}: {status}");
    }
}

/// The user and group without rights on most systems.
const UNPRIVILEGED: u32 = 65534;

#[test]
fn other_processes_of_the_same_user_cannot_look_inside() {
    // A process that must not be dumped belongs to root in /proc, whatever user runs it. Root itself shows nothing, so
    // it starts the device as another user, from a copy that this user can reach.
    let folder = tempfile::tempdir().expect("a folder");
    let program = folder.path().join("vhost-user-hmm");
    std::fs::copy(PROGRAM, &program).expect("a copy");
    let mut command = Command::new(&program);
    command
        .arg("--socket-path")
        .arg(folder.path().join("socket"))
        .args(["--memory", "2M", "--log-level", "warn"])
        .stdout(Stdio::piped());
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(folder.path(), Some(UNPRIVILEGED), Some(UNPRIVILEGED))
            .expect("a folder of its own");
        command.uid(UNPRIVILEGED).gid(UNPRIVILEGED);
    }
    let mut child = command.spawn().expect("it starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped"))
        .read_line(&mut line)
        .expect("a line");
    assert!(line.starts_with("listening on "), "{line}");
    let owner = std::fs::metadata(format!("/proc/{}/mem", child.id()))
        .expect("its memory")
        .uid();
    child.kill().expect("it runs");
    child.wait().expect("its end");
    assert_eq!(owner, 0, "the owner may trace it");
}
