// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask trace-join`: the guest's trace events and the device's trace in one file for Chrome's and Perfetto's
//! viewers. docs/tracing.md shows how to make both.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use hmm_report::clock::{Clock, Span};
use hmm_report::device;
use hmm_report::guest::{self, GuestEvent};

/// Options of `trace-join`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The text of the guest's `/sys/kernel/tracing/trace`.
    #[arg(long, value_name = "FILE")]
    guest: PathBuf,
    /// What the device wrote with `--trace FILE`.
    #[arg(long, value_name = "FILE")]
    device: PathBuf,
    /// The device in the guest, where there are several.
    #[arg(long, value_name = "NAME", default_value = "virtio0")]
    name: String,
    /// Where to write both.
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
}

/// Joins two traces.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let read =
        |path: &PathBuf| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let text = read(&arguments.guest)?;
    let guest = guest::parse(&String::from_utf8_lossy(&text), &arguments.name);
    let device: Vec<Value> = serde_json::from_slice(&read(&arguments.device)?)
        .with_context(|| format!("{} is no trace of the device", arguments.device.display()))?;
    let (joined, clock, batches) = join(&guest, &device)?;
    fs::write(&arguments.output, serde_json::to_vec(&joined)?)
        .with_context(|| format!("cannot write {}", arguments.output.display()))?;
    println!(
        "{batches} batches are in both; the guest's clock is {:.3} us behind the host's, give or take {:.3} us",
        clock.offset, clock.uncertainty
    );
    if (clock.rate - 1.0).abs() > 0.01 {
        println!(
            "in a second of the guest, {:.3} s of the host pass; the guest's times are shown as the host's",
            clock.rate
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// The process that stands for the guest in the viewer; the device's own trace has 1.
const GUEST_PROCESS: u64 = 2;

/// All events of both sides, on the device's clock, and how many batches both know.
fn join(guest: &[GuestEvent], device: &[Value]) -> Result<(Vec<Value>, Clock, usize)> {
    let on_device: BTreeMap<u64, Span> = device.iter().filter_map(device::batch).collect();
    let in_guest = guest::batches(guest);
    let pairs: Vec<(Span, Span)> = in_guest
        .iter()
        .filter_map(|(cookie, &span)| Some((span, *on_device.get(cookie)?)))
        .collect();
    ensure!(
        !pairs.is_empty(),
        "no batch is in both traces: the guest's has {}, the device's {}; take both during the same run",
        in_guest.len(),
        on_device.len()
    );
    let clock = Clock::between(&pairs);

    let mut joined = device.to_vec();
    joined.push(json!({
        "name": "process_name", "ph": "M", "pid": GUEST_PROCESS, "args": { "name": "virtio_hmm in the guest" },
    }));
    for event in guest {
        joined.extend(event.to_json(GUEST_PROCESS, clock));
    }
    for (cookie, span) in &in_guest {
        let Some(&there) = on_device.get(cookie) else {
            continue;
        };
        let arrow = |phase: &str, process: u64, track: u64, time: f64| {
            json!({
                "name": "batch", "cat": "batch", "ph": phase, "bp": "e", "id": cookie,
                "pid": process, "tid": track, "ts": time,
            })
        };
        joined.push(arrow(
            "s",
            GUEST_PROCESS,
            span.track,
            clock.to_host(span.start),
        ));
        joined.push(arrow("f", 1, there.track, there.start));
    }
    Ok((joined, clock, pairs.len()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::join;
    use hmm_report::guest;

    const GUEST: &str = "\
# tracer: nop
     sort-107   [000] .....     4.000100: vhmm_batch_submit: dev=virtio0 cookie=0x1a queue=3 trigger=user direction=to_device entries=2 bytes=8192
     sort-107   [000] .....     4.000300: vhmm_batch_done: dev=virtio0 cookie=0x1a queue=3 direction=to_device result=ok entries=2 entries_ok=2 bytes=8192 ns=200000
     sort-107   [001] .....     4.000400: vhmm_skip: dev=virtio0 trigger=user reason=hole range=0x1000-0x3000 pages=2
     sort-107   [001] .....     4.000410: vhmm_skip: dev=virtio1 trigger=user reason=hole range=0x1000-0x3000 pages=2
     sort-107   [001] .....     4.000900: vhmm_fault: dev=virtio0 trigger=cpu_fault address=0x7f00 result=ok bytes=4096 ns=50000
";

    fn device() -> Vec<Value> {
        vec![
            json!({"name":"process_name","ph":"M","pid":1,"args":{"name":"vhost-user-hmm"}}),
            json!({"name":"to_device","cat":"batch","ph":"X","pid":1,"tid":3,"ts":9_000_200.0,"dur":80.0,"args":{"cookie":"0x1a"}}),
            json!({"name":"to_device","cat":"batch","ph":"X","pid":1,"tid":3,"ts":9_000_900.0,"dur":80.0,"args":{"cookie":"0x1b"}}),
        ]
    }

    #[test]
    fn the_guests_events_are_on_the_devices_clock() {
        let (joined, clock, batches) = join(&guest::parse(GUEST, "virtio0"), &device()).unwrap();
        assert_eq!(batches, 1);
        // The copy ran from 200 to 280, and the guest waited from 100 to 300: it is off by 5 s, by 100 at most and
        // by -20 at least.
        assert!((clock.offset - 5_000_040.0).abs() < 0.001, "{clock:?}");
        assert!((clock.uncertainty - 60.0).abs() < 0.001, "{clock:?}");
        let named = |name: &str, process: u64| -> Vec<&Value> {
            let events = joined.iter();
            events
                .filter(|event| {
                    event["name"] == name && event["pid"] == process && event["ph"] == "X"
                })
                .collect()
        };
        let batch = named("to_device", 2);
        assert_eq!(batch.len(), 1);
        assert!((batch[0]["ts"].as_f64().unwrap() - 9_000_140.0).abs() < 0.001);
        assert!((batch[0]["dur"].as_f64().unwrap() - 200.0).abs() < 0.001);
        assert_eq!(batch[0]["args"]["trigger"], "user");
        // A fault is told when it is over.
        let fault = named("fault", 2);
        assert!((fault[0]["ts"].as_f64().unwrap() - 9_000_890.0).abs() < 0.001);
        let arrows = joined.iter().filter(|event| event["id"] == 0x1a).count();
        assert_eq!(arrows, 2);
        let skips = joined.iter().filter(|event| event["name"] == "skip: hole");
        assert_eq!(skips.count(), 1, "the other device's is in it");
        assert_eq!(named("to_device", 1).len(), 2);
    }

    #[test]
    fn traces_of_different_runs_are_refused() {
        let error = join(&guest::parse(GUEST, "virtio0"), &device()[2..]).unwrap_err();
        assert!(error.to_string().contains("no batch is in both"), "{error}");
    }
}
