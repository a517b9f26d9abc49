// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a user meets before any front end does.

use std::{
    ffi::OsStr,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    process::{Command, Output},
};

use hmm_front_end::Process;
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_vhost-user-hmm");

fn run(arguments: &[&str]) -> Output {
    Command::new(PROGRAM)
        .args(arguments)
        .output()
        .expect("the program starts")
}

#[test]
fn capabilities_are_json_as_qemu_wants_them() {
    let output = run(&["--print-capabilities"]);
    assert_eq!(output.status.code(), Some(0));
    let printed: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(printed["type"], "hmm");
    assert!(printed["features"].is_array());
    assert_eq!(printed["virtio_id"], 37);
    assert_eq!(printed["config_bytes"], 128);
}

#[test]
fn bad_arguments_end_it_early() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("socket");
    let socket = socket.to_str().expect("UTF-8");
    for arguments in [
        &[][..],
        &["--socket-path"],
        &["--socket-path", socket, "--fd", "3"],
        &["--socket-path", socket, "--memory", "1"],
        &["--socket-path", socket, "--memory", "lots"],
        &["--socket-path", socket, "--bulk-queues", "99"],
        &["--socket-path", socket, "--queue-size", "77"],
        &["--socket-path", socket, "--unknown"],
        &["--fd", "0"],
        &[
            "--socket-path",
            socket,
            "--no-faults",
            "--fault-script",
            socket,
        ],
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn what_cannot_be_set_up_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    std::fs::write(at("file"), "text").expect("a file");
    std::fs::write(at("script"), "# fine\n{\"action\":\"explode\"}\n").expect("a file");
    let good = at("socket");
    for (arguments, expected) in [
        (
            vec!["--socket-path", "/nonexistent/socket"],
            "Cannot listen on",
        ),
        (vec!["--socket-path", &at("file")], "is not a socket"),
        (vec!["--fd", "99"], "is not open"),
        (
            vec!["--socket-path", &good, "--memory-file", &at("file")],
            "expected 270532608",
        ),
        (
            vec!["--socket-path", &good, "--memory-file", "/nonexistent/file"],
            "Cannot open the memory file",
        ),
        (
            vec!["--socket-path", &good, "--fault-script", &at("none")],
            "Cannot read the fault script",
        ),
        (
            vec!["--socket-path", &good, "--fault-script", &at("script")],
            "Line 2 of the fault script",
        ),
        (
            vec!["--socket-path", &good, "--control-socket", &at("file")],
            "is not a socket",
        ),
    ] {
        let output = run(&arguments);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {errors}");
        assert!(errors.contains(expected), "{arguments:?}: {errors}");
        let reasons = errors.matches("os error").count();
        assert!(reasons <= 1, "the reason is given more than once: {errors}");
    }
    assert_eq!(
        std::fs::read_to_string(at("file")).expect("still there"),
        "text"
    );
}

#[test]
fn a_socket_in_use_is_left_alone() {
    let process = Process::start(PROGRAM, &[]);
    let socket = process.socket();
    let output = run(&["--socket-path", socket.to_str().expect("UTF-8")]);
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(errors.contains("Another process listens"), "{errors}");
    assert!(socket.exists());
    drop(std::os::unix::net::UnixStream::connect(&socket).expect("it still listens"));
}

#[test]
fn a_memory_file_in_use_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("memory");
    let file = file.to_str().expect("UTF-8");
    let _process = Process::start(PROGRAM, &["--memory", "4M", "--memory-file", file]);
    let socket = folder.path().join("socket");
    let output = run(&[
        "--socket-path",
        socket.to_str().expect("UTF-8"),
        "--memory",
        "4M",
        "--memory-file",
        file,
    ]);
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(errors.contains("in use by another process"), "{errors}");
    assert!(!socket.exists(), "a socket that nobody serves");
}

#[test]
fn logs_may_be_json() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("socket");
    let mut child = Command::new(PROGRAM)
        .args(["--log-format", "json", "--log-level", "info"])
        .arg("--socket-path")
        .arg(&socket)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut ready = [0; 9];
    std::io::Read::read_exact(child.stdout.as_mut().expect("piped"), &mut ready).expect("output");
    assert_eq!(&ready, b"listening");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("kill");
    let output = child.wait_with_output().expect("its output");
    let lines = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(lines.lines().count() >= 2, "{lines}");
    for line in lines.lines() {
        let parsed: Value = serde_json::from_str(line).expect("JSON");
        assert!(parsed["level"].is_string(), "{line}");
    }
}

#[test]
fn systemd_is_told_when_the_socket_is_bound() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notify");
    let receiver = UnixDatagram::bind(&path).expect("bind");
    systemd_is_told(&receiver, path.as_os_str());
    // systemd in containers names its socket without a file.
    let name = format!("vhost-user-hmm-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let receiver = UnixDatagram::bind_addr(&address).expect("bind");
    systemd_is_told(&receiver, format!("@{name}").as_ref());
}

fn systemd_is_told(receiver: &UnixDatagram, told: &OsStr) {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("socket");
    receiver
        .set_read_timeout(Some(std::time::Duration::from_secs(60)))
        .expect("a time-out");
    let mut child = Command::new(PROGRAM)
        .args(["--memory", "16M", "--log-level", "warn", "--socket-path"])
        .arg(&socket)
        .env("NOTIFY_SOCKET", told)
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("the program starts");
    let mut message = [0; 64];
    let received = receiver.recv(&mut message);
    if received.is_err() {
        child.kill().expect("it runs");
    }
    let len = received.expect("a message in time");
    assert_eq!(&message[..len], b"READY=1\n");
    drop(std::os::unix::net::UnixStream::connect(&socket).expect("it listens"));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("kill");
    assert_eq!(child.wait().expect("wait").code(), Some(0));
}
