// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Rings that are set up wrongly, and event descriptors that are none: the queue breaks, the connection and the other
//! queues go on, and no thread of the device spins.

use std::{
    os::fd::{FromRawFd, IntoRawFd, OwnedFd},
    time::Duration,
};

use hmm_front_end::{DATA, EVENT_IDX, FrontEnd, Layout, MOST_QUEUES, Process};
use hmm_protocol::{
    BULK_QUEUE_FIRST, BatchFlags, ControlKind, ControlRequest, CopyEntry, EVENT_QUEUE, EventKind,
    Op, Status, URGENT_QUEUE,
};
use rustix::{
    event::{EventfdFlags, eventfd},
    fs::{OFlags, fcntl_getfl},
    io::{Errno, read, write},
    pipe::pipe,
    time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    },
};
use vhost::{VhostBackend, VringConfigData, vhost_user::VhostUserFrontend};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use zerocopy::IntoBytes;

const PROGRAM: &str = env!("CARGO_BIN_EXE_vhost-user-hmm");
const QUEUE: usize = BULK_QUEUE_FIRST as usize;
/// Guest addresses of the third memory region of the default layout.
const REGION: u64 = 1 << 32;
const REGION_END: u64 = REGION + (8 << 20);

fn start() -> (Process, FrontEnd) {
    // Without looks for work, an idle worker uses no time at all.
    let arguments = ["--memory", "16M", "--poll-us", "0", "--log-level", "error"];
    let process = Process::start(PROGRAM, &arguments);
    let mut front_end = FrontEnd::start(&process.socket(), 1, &Layout::default());
    front_end.open();
    (process, front_end)
}

fn fill() -> CopyEntry {
    CopyEntry::new(Op::Fill, 0, 0, 8)
}

fn descriptor(file: impl Into<OwnedFd>) -> EventFd {
    // SAFETY: the descriptor is owned and given away.
    unsafe { EventFd::from_raw_fd(file.into().into_raw_fd()) }
}

/// Round trips of the first worker, until no other thread has anything to do meanwhile. One that goes round in circles never
/// rests, however busy the machine is; what was going on before ends at some time.
fn assert_others_rest(process: &Process, front_end: &mut FrontEnd, why: &str) {
    const ROUNDS: usize = 20;
    let ping = ControlRequest::new(ControlKind::Ping, 0, 1, 0, 0);
    let mut round_trips = |count: u32| {
        let before = process.thread_times();
        for _ in 0..count {
            front_end.control(ping.as_bytes());
        }
        let after = process.thread_times();
        let mut times: Vec<Duration> = after
            .iter()
            .filter_map(|(thread, time)| time.checked_sub(*before.get(thread)?))
            .collect();
        times.sort_unstable();
        times
    };
    let mut busy = Vec::new();
    while busy.len() < ROUNDS {
        let mut times = round_trips(2000);
        let busiest = times.pop().expect("threads");
        let others: Duration = times.iter().sum();
        if others < busiest / 5 {
            return;
        }
        busy.push((busiest, others));
    }
    panic!("{why}: the times of one thread and of the others were {busy:?}");
}

/// Stops the bulk queue, sets it up with what `change` makes of its size and addresses, and expects that it breaks: the
/// guest gets an event and the front end a signal. Set up rightly, it is served again.
fn breaks(
    front_end: &mut FrontEnd,
    why: &str,
    change: impl Fn(&FrontEnd, &mut u16, &mut VringConfigData),
) {
    front_end.frontend.get_vring_base(QUEUE).expect("base");
    let event = front_end.post_event_buffer(0);
    let error = EventFd::new(EFD_NONBLOCK).expect("an eventfd");
    front_end.rings[QUEUE].reset(&front_end.guest);
    let ring = &front_end.rings[QUEUE];
    let mut size = ring.size();
    let mut config = ring.config(&front_end.guest);
    change(front_end, &mut size, &mut config);
    let frontend = &mut front_end.frontend;
    let set_up = [
        frontend.set_vring_num(QUEUE, size),
        frontend.set_vring_base(QUEUE, 0),
        frontend.set_vring_addr(QUEUE, &config),
        frontend.set_vring_err(QUEUE, &error),
        frontend.set_vring_call(QUEUE, &ring.call),
        frontend.set_vring_kick(QUEUE, &ring.kick),
        frontend.set_vring_enable(QUEUE, true),
    ];
    for step in set_up {
        step.unwrap_or_else(|failed| panic!("{why}: the connection is lost: {failed}"));
    }
    ring.kick();
    assert_broken(front_end, event, &error, why);
    front_end.frontend.get_vring_base(QUEUE).expect("base");
    front_end.start_queue(QUEUE);
    assert_eq!(front_end.run(&[fill()]).status(), Status::Ok, "{why}");
}

fn assert_broken(front_end: &mut FrontEnd, event: u64, error: &EventFd, why: &str) {
    let event = front_end.event(event);
    assert_eq!(event.kind, EventKind::QueueBroken as u8, "{why}");
    assert_eq!(event.queue.get(), BULK_QUEUE_FIRST, "{why}");
    // It came before the event.
    assert_eq!(error.read().expect("signalled"), 1, "{why}");
    let urgent = front_end.run_urgent(&[fill()]).status();
    assert_eq!(urgent, Status::Ok, "{why}");
}

#[test]
fn sizes_that_virtio_does_not_know_break_the_queue() {
    let (_process, mut front_end) = start();
    // The last two are powers of two that this device does not allow.
    for wrong in [3, 255, 512, 32768] {
        let why = format!("{wrong} descriptors");
        breaks(&mut front_end, &why, |_, size, _| *size = wrong);
    }
}

#[test]
fn rings_that_leave_the_memory_table_break_the_queue() {
    let (process, mut front_end) = start();
    breaks(&mut front_end, "descriptors", |front_end, _, config| {
        config.desc_table_addr = front_end.guest.host_address(REGION_END - 32);
    });
    breaks(&mut front_end, "used ring", |front_end, _, config| {
        config.used_ring_addr = front_end.guest.host_address(REGION_END - 32);
    });
    breaks(&mut front_end, "used index", |front_end, _, config| {
        // The first region's memory ends behind the flags and the index.
        config.used_ring_addr = front_end.guest.host_address(REGION_END - 4);
    });
    breaks(&mut front_end, "available ring", |front_end, _, config| {
        config.avail_ring_addr = front_end.guest.host_address(REGION_END - 32);
    });
    assert_others_rest(&process, &mut front_end, "after all of them");
}

#[test]
fn half_an_available_ring_breaks_the_queue() {
    let (process, mut front_end) = start();
    front_end.frontend.get_vring_base(QUEUE).expect("base");
    let event = front_end.post_event_buffer(0);
    // Its index and ten of its elements are in memory, and the next chain is behind them.
    let avail = REGION_END - 4 - 2 * 10;
    front_end.rings[QUEUE].reset(&front_end.guest);
    let ring = &front_end.rings[QUEUE];
    let mut config = ring.config(&front_end.guest);
    config.avail_ring_addr = front_end.guest.host_address(avail);
    front_end.guest.store_u16(avail + 2, 21);
    let error = EventFd::new(EFD_NONBLOCK).expect("an eventfd");
    let frontend = &mut front_end.frontend;
    frontend.set_vring_num(QUEUE, ring.size()).expect("num");
    frontend.set_vring_base(QUEUE, 20).expect("base");
    frontend.set_vring_addr(QUEUE, &config).expect("addresses");
    frontend.set_vring_err(QUEUE, &error).expect("error");
    frontend.set_vring_kick(QUEUE, &ring.kick).expect("kick");
    frontend.set_vring_enable(QUEUE, true).expect("enable");
    ring.kick();
    assert_broken(&mut front_end, event, &error, "half a ring");
    assert_others_rest(&process, &mut front_end, "half a ring");
}

/// Descriptors that are readable again as soon as they were read, or cannot be read at all.
fn endless() -> Vec<(&'static str, EventFd)> {
    let semaphore = eventfd(0, EventfdFlags::SEMAPHORE | EventfdFlags::NONBLOCK).expect("eventfd");
    write(&semaphore, &(u64::MAX - 1).to_ne_bytes()).expect("room");
    let (reader, writer) = pipe().expect("a pipe");
    drop(writer);
    let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK).expect("a timer");
    let soon = Timespec {
        tv_sec: 0,
        tv_nsec: 1000,
    };
    let times = Itimerspec {
        it_interval: soon,
        it_value: soon,
    };
    timerfd_settime(&timer, TimerfdTimerFlags::empty(), &times).expect("set");
    vec![
        ("a semaphore", descriptor(semaphore)),
        ("a pipe without a writer", descriptor(reader)),
        ("a timer", descriptor(timer)),
    ]
}

#[test]
fn a_kick_descriptor_that_stays_readable_breaks_the_queue() {
    let (process, mut front_end) = start();
    for (why, kick) in endless() {
        front_end.frontend.get_vring_base(QUEUE).expect("base");
        let event = front_end.post_event_buffer(0);
        let error = EventFd::new(EFD_NONBLOCK).expect("an eventfd");
        front_end
            .frontend
            .set_vring_err(QUEUE, &error)
            .expect("error");
        front_end.rings[QUEUE].reset(&front_end.guest);
        front_end.rings[QUEUE].kick = kick;
        front_end.start_ring(QUEUE);
        assert_broken(&mut front_end, event, &error, why);
        assert_others_rest(&process, &mut front_end, why);
        front_end.frontend.get_vring_base(QUEUE).expect("base");
        front_end.start_queue(QUEUE);
        assert_eq!(front_end.run(&[fill()]).status(), Status::Ok, "{why}");
    }
}

#[test]
fn a_kick_descriptor_may_be_replaced() {
    let (process, mut front_end) = start();
    let mut old = Vec::new();
    for round in 0..3 {
        let fresh = EventFd::new(0).expect("an eventfd");
        front_end
            .frontend
            .set_vring_kick(QUEUE, &fresh)
            .expect("kick");
        old.push(std::mem::replace(&mut front_end.rings[QUEUE].kick, fresh));
        // The front end still has the old ones, and something is in them.
        for kick in &old {
            kick.write(1).expect("room");
        }
        assert_others_rest(&process, &mut front_end, "old kick descriptors");
        // Nothing but the new one tells of the batch.
        assert_eq!(
            front_end.run(&[fill()]).status(),
            Status::Ok,
            "round {round}"
        );
    }
    for kick in &old {
        kick.read().expect("nobody else reads them");
    }
}

#[test]
fn descriptors_keep_their_flags_and_never_block_the_device() {
    let (_process, mut front_end) = start();
    front_end.frontend.get_vring_base(QUEUE).expect("base");
    front_end.rings[QUEUE].reset(&front_end.guest);
    let [kick, call, error] = [(); 3].map(|()| EventFd::new(0).expect("an eventfd"));
    front_end
        .frontend
        .set_vring_err(QUEUE, &error)
        .expect("error");
    let copies = [&kick, &call, &error].map(descriptor_of);
    front_end.rings[QUEUE].kick = kick;
    front_end.rings[QUEUE].call = call;
    front_end.start_ring(QUEUE);
    assert_eq!(front_end.run(&[fill()]).status(), Status::Ok);
    let flags = |what: &OwnedFd| fcntl_getfl(what).expect("flags");
    for copy in &copies {
        assert!(
            !flags(copy).contains(OFlags::NONBLOCK),
            "the front end's flag changed"
        );
    }
    // The counter is as full as it can be: to signal once more would block.
    let call = &copies[1];
    rustix::fs::fcntl_setfl(call, flags(call) | OFlags::NONBLOCK).expect("flags");
    let mut counter = [0; 8];
    match read(call, &mut counter) {
        Ok(_) | Err(Errno::AGAIN) => {}
        Err(error) => panic!("{error}"),
    }
    write(call, &(u64::MAX - 1).to_ne_bytes()).expect("room");
    rustix::fs::fcntl_setfl(call, flags(call) - OFlags::NONBLOCK).expect("flags");
    for _ in 0..3 {
        assert_eq!(front_end.run(&[fill()]).status(), Status::Ok);
    }
    front_end.frontend.get_vring_base(QUEUE).expect("it stops");
}

fn descriptor_of(event: &EventFd) -> OwnedFd {
    let copy = event.try_clone().expect("a descriptor");
    // SAFETY: the copy is owned and given away.
    unsafe { OwnedFd::from_raw_fd(copy.into_raw_fd()) }
}

#[test]
fn a_fence_sees_batches_that_were_never_kicked() {
    let process = Process::start(PROGRAM, &["--memory", "16M", "--bulk-queues", "2"]);
    let mut front_end = FrontEnd::start(&process.socket(), 2, &Layout::default());
    front_end.open();
    let others = [URGENT_QUEUE, BULK_QUEUE_FIRST + 1];
    let records = others.map(|queue| {
        let request = front_end.entries(BatchFlags::default(), &[fill()]);
        front_end.submit(queue, &request, 0)
    });
    let request = front_end.entries(BatchFlags::FENCE, &[fill()]);
    assert_eq!(front_end.execute(&request).status(), Status::Ok);
    for (queue, record) in others.into_iter().zip(records) {
        assert_eq!(front_end.answer(queue, record, 0).status(), Status::Ok);
    }
}

#[test]
fn a_disabled_queue_has_no_batch_half_done() {
    let (_process, mut front_end) = start();
    let entries = [CopyEntry::new(Op::ToSystem, DATA, 0, 2 << 20); 8];
    for round in 0..20 {
        let request = front_end.entries(BatchFlags::default(), &entries);
        let record = front_end.submit(BULK_QUEUE_FIRST, &request, 0);
        front_end.rings[QUEUE].kick();
        front_end
            .frontend
            .set_vring_enable(QUEUE, false)
            .expect("disabled");
        let used = front_end.rings[QUEUE].used_index(&front_end.guest);
        let status = front_end.guest.load_u8(record);
        // A batch takes as long as many of these.
        for _ in 0..100 {
            assert_eq!(front_end.run_urgent(&[fill()]).status(), Status::Ok);
        }
        let after = front_end.rings[QUEUE].used_index(&front_end.guest);
        assert_eq!(used, after, "round {round}: a batch went on");
        assert_eq!(status, front_end.guest.load_u8(record), "round {round}");
        front_end
            .frontend
            .set_vring_enable(QUEUE, true)
            .expect("enabled");
        let answer = front_end.answer(BULK_QUEUE_FIRST, record, 0);
        assert_eq!(answer.status(), Status::Ok, "round {round}");
    }
}

#[test]
fn a_broken_queue_signals_the_front_end_without_event_index_too() {
    let process = Process::start(PROGRAM, &["--memory", "16M", "--log-level", "error"]);
    let frontend =
        vhost::vhost_user::Frontend::connect(process.socket(), MOST_QUEUES).expect("connect");
    let mut front_end = FrontEnd::start_on(frontend, 1, &Layout::default(), !EVENT_IDX);
    front_end.open();
    let error = EventFd::new(EFD_NONBLOCK).expect("an eventfd");
    let event = front_end.post_event_buffer(0);
    front_end
        .frontend
        .set_vring_err(QUEUE, &error)
        .expect("error");
    front_end.rings[QUEUE].make_available(&front_end.guest, 999);
    front_end.rings[QUEUE].kick();
    assert_broken(&mut front_end, event, &error, "a wild head");
    assert_eq!(
        front_end.rings[usize::from(EVENT_QUEUE)].in_flight(),
        0,
        "one event"
    );
}
