// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Front ends that break the rules: it costs them the connection at most, unless they take memory away that is in use.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    time::Duration,
};

use hmm_front_end::{FrontEnd, Layout, Process};
use hmm_protocol::{BULK_QUEUE_FIRST, BatchFlags, CopyEntry, Op, Status};
use vhost::vhost_user::{VhostUserFrontend, message::VhostUserConfigFlags};

const PROGRAM: &str = env!("CARGO_BIN_EXE_vhost-user-hmm");

#[test]
fn writes_to_the_configuration_space_are_ignored() {
    let process = Process::start(PROGRAM, &["--memory", "16M"]);
    let mut front_end = FrontEnd::start(&process.socket(), 1, &Layout::default());
    let before = front_end.config();
    front_end
        .frontend
        .set_config(0, VhostUserConfigFlags::WRITABLE, &[0xff; 128])
        .expect("ignored, not refused");
    let after = front_end.config();
    assert_eq!(
        zerocopy::IntoBytes::as_bytes(&before),
        zerocopy::IntoBytes::as_bytes(&after)
    );
    let (_, beyond) = front_end
        .frontend
        .get_config(64, 192, VhostUserConfigFlags::empty(), &[0; 192])
        .expect("more than there is");
    assert!(beyond[64..].iter().all(|byte| *byte == 0));
}

#[test]
fn garbage_on_the_sockets_costs_the_connection_only() {
    let process = Process::start(PROGRAM, &["--log-level", "error"]);
    let mut garbage = Vec::new();
    for seed in 0..64 {
        garbage.push(hmm_front_end::pattern(seed, 4096));
    }
    // Messages with sound headers and wild contents: every request code, version 1, sizes that fit.
    for code in 0u32..64 {
        for size in [0u32, 8, 16, 40, 256] {
            let mut message = Vec::new();
            for word in [code, 1, size] {
                message.extend_from_slice(&word.to_le_bytes());
            }
            message.extend(hmm_front_end::pattern(
                u64::from(code * 7 + size),
                size as usize,
            ));
            garbage.push(message);
        }
    }
    for bytes in &garbage {
        let mut stream = UnixStream::connect(process.socket()).expect("it listens");
        // It may hang up before it has read all.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .expect("a time-out");
        let mut rest = Vec::new();
        match stream.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) => assert_eq!(
                error.kind(),
                std::io::ErrorKind::ConnectionReset,
                "it does not hang up"
            ),
        }
    }
    let answer = process.command("nonsense");
    assert_eq!(answer["ok"], false);
    let mut front_end = FrontEnd::start(&process.socket(), 1, &Layout::flat(32 << 20));
    front_end.open();
    let fill = CopyEntry::new(Op::Fill, 0, 0, 8);
    assert_eq!(front_end.run(&[fill]).status(), Status::Ok);
}

#[test]
fn memory_that_is_taken_away_ends_it_with_a_reason() {
    use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("socket");
    let mut child = std::process::Command::new(PROGRAM)
        .args(["--memory", "16M", "--socket-path"])
        .arg(&socket)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut listening = [0; 9];
    child
        .stdout
        .as_mut()
        .expect("piped")
        .read_exact(&mut listening)
        .expect("output");
    let mut front_end = FrontEnd::start(&socket, 1, &Layout::default());
    front_end.open();
    let region = front_end.guest.memory.iter().nth(2).expect("a third");
    let file = region.file_offset().expect("a file").file();
    file.set_len(0).expect("truncated");
    let entry = CopyEntry::new(Op::ToDevice, 1 << 32, 0, 4096);
    let request = front_end.entries(BatchFlags::default(), &[entry]);
    front_end.submit(BULK_QUEUE_FIRST, &request, 0);
    front_end.rings[usize::from(BULK_QUEUE_FIRST)].kick();
    let output = child.wait_with_output().expect("its end");
    assert_eq!(output.status.code(), Some(70));
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(errors.contains("memory is gone"), "{errors}");
}
