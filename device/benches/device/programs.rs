// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A program on the device beside the same loop of this process, in nanoseconds of an RV64 instruction.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use hmm_front_end::end_status;
use hmm_protocol::{ControlKind, JobFlags, JobKind, MapEntry, MapFlags, Status};

use crate::{
    baseline::processor_time, load::GUEST_START, path::Path, processors::Processors, report::Figure,
};

const CONTEXT: u32 = 1;
const BLOCK: u64 = 2 << 20;
/// Where code, stack and words are in the context.
const CODE: u64 = 1 << 40;
const STACK: u64 = CODE + BLOCK;
const WORDS: u64 = CODE + BLOCK;
/// Words that the loop goes over: they fit in the second cache.
const COUNT: u64 = 1 << 14;
const PASSES: u64 = 50;
/// Instructions of the loop's body.
const BODY: u64 = 9;
const INSTRUCTIONS: u64 = PASSES * (COUNT * BODY + 4) + 1;

/// `a0` is the first word, `a1` how many there are, `a2` how many passes, and the sum is returned.
const PROGRAM: [u32; 14] = [
    0x0005_0293, // pass: mv t0, a0
    0x0005_8313, //       mv t1, a1
    0x0002_b383, // next: ld t2, 0(t0)
    0x0036_9e13, //       slli t3, a3, 3
    0x01c3_c3b3, //       xor t2, t2, t3
    0x0076_86b3, //       add a3, a3, t2
    0x0013_8393, //       addi t2, t2, 1
    0x0072_b023, //       sd t2, 0(t0)
    0x0082_8293, //       addi t0, t0, 8
    0xfff3_0313, //       addi t1, t1, -1
    0xfe03_10e3, //       bnez t1, next
    0xfff6_0613, //       addi a2, a2, -1
    0xfc06_18e3, //       bnez a2, pass
    0x0000_8067, //       ret, with what a0 was
];

const HART: &str = "program on one hart, an instruction";
const HERE: &str = "the same loop by this process, an instruction";

/// Runs the figures if `only` asks for them; `time` for both.
pub(crate) fn measure(
    processors: &Processors,
    time: Duration,
    footprint: u64,
    only: &str,
) -> Vec<Figure> {
    if !HART.contains(only) && !HERE.contains(only) {
        return Vec::new();
    }
    let mut path = Path::start(footprint, 1, &["--executors", "1"]);
    let front_end = &mut path.front_end;
    let created = front_end.ask(ControlKind::ContextCreate, CONTEXT.into(), 0);
    assert_eq!(created, Status::Ok);
    let entries = [MapEntry::map(
        CODE,
        2 * BLOCK,
        GUEST_START,
        MapFlags::PERMISSIONS,
        21,
    )];
    assert_eq!(front_end.change(CONTEXT, &entries).status(), Status::Ok);
    let code: Vec<u8> = PROGRAM.iter().flat_map(|word| word.to_le_bytes()).collect();
    front_end.guest.write(GUEST_START, &code);
    let arguments = [CODE, STACK, 0, 1, 0, 0, WORDS, COUNT, PASSES];

    let mut here = vec![0u64; COUNT as usize];
    let (mut on_hart, mut costs) = (Vec::new(), Vec::new());
    let (mut in_process, mut own_costs) = (Vec::new(), Vec::new());
    let started = Instant::now();
    while on_hart.len() < 6 || started.elapsed() < time {
        let (worker, other) = processors.pair(on_hart.len());
        processors.move_self_to(worker);
        let (before, spent) = (Instant::now(), processor_time());
        for _ in 0..PASSES {
            black_box(pass(black_box(&mut here)));
        }
        in_process.push(each(before.elapsed()));
        own_costs.push(each(processor_time().saturating_sub(spent)));
        processors.move_process_to(path.pid(), worker);
        processors.move_self_to(other);
        let none = JobFlags::default();
        let spent = path.processor_time();
        let report = (path.front_end).run_job(JobKind::Program, none, CONTEXT, &arguments);
        assert_eq!(end_status(&report), Status::Ok, "{report:?}");
        assert_eq!(report.amount.get(), INSTRUCTIONS);
        on_hart.push(each(Duration::from_nanos(report.device_ns.get())));
        costs.push(each(path.processor_time().saturating_sub(spent)));
    }
    processors.free_self();
    processors.free_process(path.pid());
    vec![
        Figure::new(HART, "ns", None, on_hart).with_cost(costs),
        Figure::new(HERE, "ns", None, in_process).with_cost(own_costs),
    ]
}

/// What the program does in a pass.
fn pass(words: &mut [u64]) -> u64 {
    let mut sum = 0u64;
    for word in words {
        // Each step needs the one before, so that the compiler does not make it one step for many words.
        let mixed = *word ^ (sum << 3);
        sum = sum.wrapping_add(mixed);
        *word = mixed.wrapping_add(1);
    }
    sum
}

fn each(time: Duration) -> f64 {
    time.as_secs_f64() * 1e9 / INSTRUCTIONS as f64
}
