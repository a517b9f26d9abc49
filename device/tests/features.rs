// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a driver did not negotiate does not work for it.

use hmm_front_end::{DATA, FrontEnd, Layout, MOST_QUEUES, Process};
use hmm_protocol::{
    BatchFlags, ControlKind, ControlRequest, CopyEntry, EntryFlags, Features, Op, PageList, Status,
    golden,
};
use vhost::vhost_user::Frontend;
use zerocopy::IntoBytes;

const PROGRAM: &str = env!("CARGO_BIN_EXE_vhost-user-hmm");

/// A driver that negotiates all but `missing`, with an open session.
fn start_without(process: &Process, missing: Features) -> FrontEnd {
    let frontend = Frontend::connect(process.socket(), MOST_QUEUES).expect("the device accepts");
    let mut front_end = FrontEnd::start_on(frontend, 1, &Layout::default(), !missing.0);
    front_end.open();
    front_end
}

/// What a request comes to for a driver that negotiated everything, and for one without `missing`.
fn both_ways(missing: Features, request: impl Fn(&mut FrontEnd) -> Status) -> (Status, Status) {
    let process = Process::start(PROGRAM, &["--memory", "16M"]);
    let mut front_end = start_without(&process, Features::default());
    let with = request(&mut front_end);
    drop(front_end);
    let mut front_end = start_without(&process, missing);
    (with, request(&mut front_end))
}

fn entry(op: Op, address: u64, flags: EntryFlags) -> CopyEntry {
    let mut entry = CopyEntry::new(op, address, 0, 4096);
    entry.flags = flags.0;
    entry
}

#[test]
fn operations_have_to_be_negotiated() {
    let plain = EntryFlags::default();
    for (missing, entry, refusal) in [
        (
            Features::DEVICE_COPY,
            entry(Op::Copy, 8192, plain),
            Status::BadOp,
        ),
        (Features::FILL, entry(Op::Fill, 1, plain), Status::BadOp),
        (
            Features::SCRUB,
            entry(Op::ToSystem, DATA, EntryFlags::SCRUB),
            Status::BadFlags,
        ),
    ] {
        let statuses = both_ways(missing, |front_end| front_end.run(&[entry]).status());
        assert_eq!(statuses, (Status::Ok, refusal), "{missing:?}");
    }
}

#[test]
fn kinds_and_flags_of_batches_have_to_be_negotiated() {
    let list = PageList::new(Op::ToDevice, 12, 0);
    let statuses = both_ways(Features::PAGE_LIST, |front_end| {
        let request = front_end.page_list(BatchFlags::default(), &list, &[DATA]);
        front_end.execute(&request).status()
    });
    assert_eq!(statuses, (Status::Ok, Status::BadOp));
    let nop = [CopyEntry::new(Op::Nop, 0, 0, 0)];
    let statuses = both_ways(Features::STATUS_ARRAY, |front_end| {
        let request = front_end.entries(BatchFlags::STATUS_ARRAY, &nop);
        front_end.execute(&request).status()
    });
    assert_eq!(statuses, (Status::Ok, Status::BadFlags));
}

#[test]
fn queues_and_requests_have_to_be_negotiated() {
    let nop = [CopyEntry::new(Op::Nop, 0, 0, 0)];
    let urgent = |front_end: &mut FrontEnd| front_end.run_urgent(&nop).status();
    let statuses = both_ways(Features::URGENT_QUEUE, urgent);
    assert_eq!(statuses, (Status::Ok, Status::BadOp));
    let statuses = both_ways(Features::DISCARD, |front_end| {
        let request = ControlRequest::new(ControlKind::Discard, 0, 1, 0, 4096);
        let (reply, _) = front_end.control(request.as_bytes());
        Status::from_wire(reply.status).expect("a status")
    });
    assert_eq!(statuses, (Status::Ok, Status::BadOp));
    // A key where none was negotiated makes the request too long, and none where one was makes it too short.
    let lengths = both_ways(Features::SESSION_KEY, |front_end| {
        let request = ControlRequest::new(ControlKind::SessionOpen, 0, 1, 0, 0);
        let (reply, _) = front_end.control(request.as_bytes());
        Status::from_wire(reply.status).expect("a status")
    });
    assert_eq!(lengths, (Status::BadLength, Status::Ok));
}

#[test]
fn faults_do_not_fire_for_a_driver_that_did_not_agree_to_them() {
    let process = Process::start(PROGRAM, &["--memory", "16M"]);
    process.command_ok(
        r#"{"command":"fault-add","fault":{"action":"fail","on":"batch","status":"internal"}}"#,
    );
    let nop = [CopyEntry::new(Op::Nop, 0, 0, 0)];
    let mut front_end = start_without(&process, Features::FAULT_INJECTION);
    assert_eq!(front_end.run(&nop).status(), Status::Ok);
    drop(front_end);
    let mut front_end = start_without(&process, Features::default());
    assert_eq!(front_end.run(&nop).status(), Status::Internal);
}

#[test]
fn a_device_without_faults_offers_none_and_takes_none() {
    let process = Process::start(PROGRAM, &["--memory", "16M", "--no-faults"]);
    let frontend = Frontend::connect(process.socket(), MOST_QUEUES).expect("the device accepts");
    let offered = vhost::VhostBackend::get_features(&frontend).expect("features");
    assert!(!Features(offered).contains(Features::FAULT_INJECTION));
    assert!(Features(offered).contains(Features::REQUIRED));
    vhost::VhostBackend::set_owner(&frontend).expect("owner");
    let answer = process.command(
        r#"{"command":"fault-add","fault":{"action":"fail","on":"batch","status":"internal"}}"#,
    );
    let text = answer["error"].as_str().unwrap_or_default();
    assert!(text.contains("--no-faults"), "{answer}");
}

/// The generation of the golden bytes is not the device's, so the answer to a request that it understands is
/// `StaleGeneration`, with the cookie of the bytes.
#[test]
fn golden_session_requests_are_understood_where_keys_were_negotiated_and_where_not() {
    let process = Process::start(PROGRAM, &["--memory", "16M"]);
    let (plain, keyed) = (&golden::CONTROL_REQUEST[..], &golden::SESSION_REQUEST[..]);
    for (missing, understood, other) in [
        (Features::default(), keyed, plain),
        (Features::SESSION_KEY, plain, keyed),
    ] {
        let mut front_end = start_without(&process, missing);
        let mut answer = |request| {
            let (reply, _) = front_end.control(request);
            (Status::from_wire(reply.status), reply.cookie.get())
        };
        assert_eq!(answer(understood), (Some(Status::StaleGeneration), 9));
        assert_eq!(answer(other), (Some(Status::BadLength), 0));
    }
}
