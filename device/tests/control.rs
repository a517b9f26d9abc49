// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the control socket answers.

use hmm_front_end::{DATA, FrontEnd, Layout, Process};
use hmm_protocol::{CopyEntry, Op, Status};
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_vhost-user-hmm");

fn start() -> (Process, FrontEnd) {
    let process = Process::start(PROGRAM, &["--memory", "16M"]);
    let mut front_end = FrontEnd::start(&process.socket(), 1, &Layout::default());
    front_end.open();
    (process, front_end)
}

fn page(index: u64) -> CopyEntry {
    CopyEntry::new(Op::ToDevice, DATA + index * 4096, index * 4096, 4096)
}

fn fill() -> CopyEntry {
    CopyEntry::new(Op::Fill, 0, 0, 8)
}

#[test]
fn mistakes_are_answered_and_change_nothing() {
    let (process, mut front_end) = start();
    for line in [
        "{",
        "[]",
        "7",
        r#"{"command":"explode"}"#,
        r#"{"command":"stats","more":1}"#,
        r#"{"command":"fault-add"}"#,
        r#"{"command":"fault-add","fault":{"action":"fail","nth":0}}"#,
        r#"{"command":"fault-add","fault":{"action":"fail","colour":"red"}}"#,
        r#"{"command":"fault-clear","id":17}"#,
        r#"{"command":"log-level","level":"loud"}"#,
    ] {
        let answer = process.command(line);
        assert_eq!(answer["ok"], false, "{line}: {answer}");
        assert!(answer["error"].is_string(), "{line}: {answer}");
    }
    let list = process.command_ok(r#"{"command":"fault-list"}"#);
    assert_eq!(list["faults"], json!([]));
    process.command_ok(r#"{"command":"log-level","level":"error"}"#);
    assert_eq!(front_end.run(&[fill()]).status(), Status::Ok);
}

#[test]
fn statistics_count_what_happened() {
    let (process, mut front_end) = start();
    process.command_ok(r#"{"command":"stats-reset"}"#);
    let outside = CopyEntry::new(Op::ToSystem, 1 << 40, 0, 4096);
    front_end.run(&[page(0), page(1), outside]);
    front_end.run_urgent(&[fill()]);
    let stats = process.command_ok(r#"{"command":"stats"}"#);
    let queues = &stats["stats"]["queues"];
    let expected: Value = json!({
        "to_device": {"entries_ok": 2, "entries_failed": 0, "bytes": 8192},
        "to_system": {"entries_ok": 0, "entries_failed": 1, "bytes": 0},
    });
    assert_eq!(queues["bulk0"]["ops"], expected);
    assert_eq!(queues["bulk0"]["results"], json!({"bad-guest-address": 1}));
    assert_eq!(queues["bulk0"]["service"]["count"], 1);
    assert_eq!(queues["urgent"]["results"], json!({"ok": 1}));
    assert_eq!(queues["urgent"]["ops"]["fill"]["bytes"], 8);
}
