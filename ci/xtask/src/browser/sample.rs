// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A recording as large as is wanted, always the same.

use std::fmt::Write;

use serde_json::{Value, json};

/// A recording with so many events, and the device's trace of the same time.
pub(super) fn recording(events: usize) -> (String, Vec<Value>) {
    let mut text = String::from("# hmm-record 1\n# command generated\n# memory_bytes 1073741824\n");
    let mut trace = vec![
        json!({"name":"thread_name","ph":"M","pid":1,"tid":2,"args":{"name":"urgent"}}),
        json!({"name":"thread_name","ph":"M","pid":1,"tid":3,"args":{"name":"bulk0"}}),
    ];
    let mut random = Random(1);
    // Microseconds.
    let mut now = 1_000_000;
    let mut written = 0;
    let mut cookie = 0;
    while written < events {
        now += 20 + random.below(60);
        let task = random.below(4);
        let address = 0x7f00_0000_0000 + random.below(64) * (2 << 20);
        let mut event = |time: u64, event: String| {
            if written < events {
                written += 1;
                line(&mut text, task, time, &format!("vhmm_{event}"));
            }
        };
        match random.below(12) {
            0 => event(
                now,
                format!(
                    "skip: dev=virtio0 trigger=user reason=pinned range={address:#x}-{:#x} pages=2",
                    address + 8192
                ),
            ),
            1 => event(
                now,
                format!(
                    "evict: dev=virtio0 trigger=eviction device_address={address:#x} bytes=2097152"
                ),
            ),
            10 => event(
                now,
                format!(
                    "job_end: dev=virtio0 context=1 cookie={now:#x} status=done address={address:#x} amount=4096 faults=2 device_ns={}",
                    9000 + random.below(90_000)
                ),
            ),
            11 => event(
                now,
                format!(
                    "invalidate: dev=virtio0 context=1 cause=change range={address:#x}-{:#x} ns={}",
                    address + 4096,
                    3000 + random.below(9000)
                ),
            ),
            2 => event(
                now,
                format!(
                    "device_fault: dev=virtio0 context=1 number={cookie} address={address:#x} access=read result=ok pages=16 ns={}",
                    5000 + random.below(9000)
                ),
            ),
            kind => {
                cookie += 1;
                let is_fault = kind < 7;
                let (queue, trigger, direction) = match is_fault {
                    true => (2, "cpu_fault", "to_system"),
                    false => (3, "user", "to_device"),
                };
                let bytes = 4096 << random.below(10);
                let took = 10 + random.below(50) + bytes / 20_000;
                event(
                    now,
                    format!(
                        "batch_submit: dev=virtio0 cookie={cookie:#x} queue={queue} trigger={trigger} direction={direction} entries=1 bytes={bytes}"
                    ),
                );
                event(
                    now + took,
                    format!(
                        "batch_done: dev=virtio0 cookie={cookie:#x} queue={queue} direction={direction} result=ok entries=1 entries_ok=1 bytes={bytes} ns={}",
                        took * 1000
                    ),
                );
                if is_fault {
                    let all = (took + 6) * 1000;
                    event(
                        now + took + 3,
                        format!(
                            "fault: dev=virtio0 trigger=cpu_fault address={address:#x} result=ok bytes={bytes} ns={all}"
                        ),
                    );
                }
                trace.push(json!({
                    "name": direction, "cat": "batch", "ph": "X", "pid": 1, "tid": queue,
                    "ts": (now + 5_000_003) as f64, "dur": (took - 6) as f64,
                    "args": { "cookie": format!("{cookie:#x}"), "status": "ok", "entries_ok": 1, "bytes": bytes },
                }));
                now += took;
            }
        }
        if random.below(100) == 0 {
            line(
                &mut text,
                9,
                now,
                "tracing_mark_write: hmm_look: pid=100 name=generated",
            );
            let mut blocks = String::from("tracing_mark_write: hmm_blocks: pid=100");
            for _ in 0..8 {
                let block = 0x7f00_0000_0000 + random.below(64) * (2 << 20);
                let device = random.below(3) * 256;
                // Writing to a string cannot fail.
                let _ = write!(
                    blocks,
                    " {block:x}:{device}:{}:{}",
                    512 - device,
                    random.below(2)
                );
            }
            line(&mut text, 9, now, &blocks);
        }
    }
    text.push_str(
        "# counter cpu_faults 5\n# counter bytes_to_device 1048576\n\
         # time wait trigger=user count=5 sum_ns=90000 p50_ns<16384 p90_ns<32768 p99_ns<32768\n\
         # time setup trigger=user count=5 sum_ns=30000 p50_ns<8192 p90_ns<8192 p99_ns<8192\n",
    );
    (text, trace)
}

fn line(text: &mut String, task: u64, microseconds: u64, event: &str) {
    let (seconds, rest) = (microseconds / 1_000_000, microseconds % 1_000_000);
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        " task-{task} [00{}] ..... {seconds}.{rest:06}: {event}",
        task % 2
    );
}

/// Numbers without a pattern, the same on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        // Knuth's generator; its upper bits are good enough for pictures.
        self.0 = (self.0.wrapping_mul(6_364_136_223_846_793_005))
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}
