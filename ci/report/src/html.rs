// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A report as one HTML file: it needs no network, and opens from disk.

mod latency;
mod residency;
mod results;
mod throughput;
mod timeline;

pub use results::{Results, Row, State};

use crate::clock::{Clock, Span};
use crate::recording::{Recording, StepTime};
use crate::summary::Summary;
use crate::{device, guest};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write;

use latency::Latency;
use residency::Residency;
use throughput::Throughput;
use timeline::Timeline;

const PAGE: &str = include_str!("../assets/page.html");
const STYLE: &str = include_str!("../assets/report.css");
const SCRIPT: &str = include_str!("../assets/report.js");
const PLOT_STYLE: &str = include_str!("../assets/uplot/uPlot.min.css");
const PLOT_SCRIPT: &str = include_str!("../assets/uplot/uPlot.iife.min.js");
const PLOT_LICENCE: &str = include_str!("../assets/uplot/LICENSE");

/// A recording of a page, and what the device traced during the same time.
#[derive(Clone, Debug, Default)]
pub struct Part {
    /// What it is of, in a few words.
    pub name: String,
    /// What was recorded in the guest.
    pub recording: Recording,
    /// The device's trace; empty without one.
    pub trace: Vec<Value>,
}

/// What the page's script gets beside the recordings.
#[derive(Serialize)]
struct Contents<'a> {
    title: &'a str,
    /// The names of the recordings. One is shown at a time.
    parts: Vec<&'a str>,
    results: Option<&'a Results>,
}

/// What the page's script gets of a recording.
#[derive(Serialize)]
struct Data<'a> {
    command: &'a str,
    /// From the first moment to the last.
    milliseconds: f64,
    lost: u64,
    /// How exact the device's times are, microseconds; nothing without them.
    clock_us: Option<f64>,
    /// How much of the host's time passes in a second of the guest's.
    clock_rate: Option<f64>,
    #[serde(flatten)]
    timeline: Timeline,
    throughput: Throughput,
    residency: Residency,
    latencies: Vec<Latency>,
    skipped: Vec<Skipped>,
    times: &'a [StepTime],
    counters: &'a BTreeMap<String, u64>,
    summary: Summary,
}

/// Pages that did not move.
#[derive(Serialize)]
struct Skipped {
    reason: String,
    trigger: String,
    pages: u64,
}

/// Zero on the report's axes, and the end of them: on the guest's clock, microseconds.
#[derive(Clone, Copy, Debug)]
struct Period {
    start: f64,
    end: f64,
}

impl Period {
    /// From the beginning of the first thing that happened to the end of the last.
    fn of(recording: &Recording) -> Self {
        let events = recording
            .events
            .iter()
            .map(|event| (begin(event), event.time));
        let looks = recording.looks.iter().map(|look| (look.time, look.time));
        let cases = recording.cases.iter().map(|case| (case.start, case.end));
        let all = Self {
            start: f64::INFINITY,
            end: f64::NEG_INFINITY,
        };
        events
            .chain(looks)
            .chain(cases)
            .fold(all, |all, (start, end)| Self {
                start: all.start.min(start),
                end: all.end.max(end),
            })
    }

    /// A time of the guest's clock on the report's axes, milliseconds.
    fn milliseconds(&self, time: f64) -> f64 {
        // A thousandth of a microsecond is exact enough, and shorter.
        ((time - self.start) * 1e3).round() / 1e6
    }

    fn length(&self) -> f64 {
        // An axis needs two ends.
        self.milliseconds(self.end).max(0.001)
    }
}

/// When an event began: it is told at its end, a job's with the time that it took on the device. Microseconds.
fn begin(event: &guest::GuestEvent) -> f64 {
    let ns = event.number("ns").or_else(|| event.number("device_ns"));
    event.time - ns.map_or(0.0, |ns| ns as f64 / 1e3)
}

/// The report of a recording, with the device's trace of the same time if there is one.
pub fn report(recording: &Recording, trace: &[Value]) -> String {
    let contents = Contents {
        title: "",
        parts: vec![""],
        results: None,
    };
    page(&contents, &[json_of(recording, trace)])
}

/// A report with several recordings, of which a reader chooses one at a time, and with results.
pub fn collection(title: &str, results: &Results, parts: &[Part]) -> String {
    let contents = Contents {
        title,
        parts: parts.iter().map(|part| &*part.name).collect(),
        results: Some(results),
    };
    let data: Vec<String> = (parts.iter())
        .map(|part| json_of(&part.recording, &part.trace))
        .collect();
    page(&contents, &data)
}

fn json_of(recording: &Recording, trace: &[Value]) -> String {
    let period = Period::of(recording);
    let on_device: BTreeMap<u64, Span> = trace.iter().filter_map(device::batch).collect();
    let in_guest = guest::batches(&recording.events);
    let pairs: Vec<(Span, Span)> = (in_guest.iter())
        .filter_map(|(cookie, &span)| Some((span, *on_device.get(cookie)?)))
        .collect();
    let clock = (!pairs.is_empty()).then(|| Clock::between(&pairs));
    json(&Data {
        command: &recording.command,
        milliseconds: period.length(),
        lost: recording.lost,
        clock_us: clock.map(|clock| clock.uncertainty / clock.rate),
        clock_rate: clock.map(|clock| clock.rate),
        timeline: Timeline::new(recording, period, trace, &on_device, clock),
        throughput: Throughput::new(&recording.events, period),
        residency: Residency::new(&recording.looks, period),
        latencies: latency::all(recording, &on_device, clock.is_some()),
        skipped: skipped(recording),
        times: &recording.times,
        counters: &recording.counters,
        summary: Summary::of(recording),
    })
}

/// JSON that cannot end the element that it stands in, whatever names of programs are in it.
fn json(value: &impl Serialize) -> String {
    // The data has maps with text as keys and finite numbers only, which is all that JSON asks for.
    let json = serde_json::to_string(value).unwrap_or_default();
    json.replace('<', "\\u003c")
}

fn page(contents: &Contents<'_>, data: &[String]) -> String {
    let mut elements = String::with_capacity(data.iter().map(|data| data.len() + 80).sum());
    for (number, data) in data.iter().enumerate() {
        // Writing to a string cannot fail.
        let _ = write!(
            elements,
            "<script type=\"application/json\" id=\"data-{number}\">{data}</script>"
        );
    }
    let contents = json(contents);
    let parts = [
        ("{{uplot.css}}", PLOT_STYLE),
        ("{{report.css}}", STYLE),
        ("{{uplot.licence}}", PLOT_LICENCE),
        ("{{contents}}", &contents),
        ("{{data}}", &elements),
        ("{{uplot.js}}", PLOT_SCRIPT),
        ("{{report.js}}", SCRIPT),
    ];
    // In the order of the page, so that nothing that was put in is looked at again.
    let mut rest = PAGE;
    let mut page =
        String::with_capacity(PAGE.len() + elements.len() + PLOT_SCRIPT.len() + SCRIPT.len());
    for (mark, part) in parts {
        let Some((before, after)) = rest.split_once(mark) else {
            continue;
        };
        page.push_str(before);
        page.push_str(part);
        rest = after;
    }
    page.push_str(rest);
    page
}

/// Pages that did not move, most first.
fn skipped(recording: &Recording) -> Vec<Skipped> {
    let mut sums: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for event in recording.events.iter().filter(|event| event.name == "skip") {
        let sum = sums
            .entry((event.word("reason"), event.word("trigger")))
            .or_default();
        *sum = sum.saturating_add(event.number("pages").unwrap_or(0));
    }
    let mut skipped: Vec<Skipped> = (sums.into_iter())
        .map(|((reason, trigger), pages)| Skipped {
            reason: reason.to_owned(),
            trigger: trigger.to_owned(),
            pages,
        })
        .collect();
    skipped.sort_by_key(|row| u64::MAX - row.pages);
    skipped
}

#[cfg(test)]
mod tests {
    use super::{PAGE, Part, Results, Row, State, collection, report};
    use crate::recording::Recording;
    use serde_json::{Value, json};

    const TEXT: &str = "\
# hmm-record 1
# command sh -c </script><script>alert(1)</script>
 sort-107   [000] .....     4.000100: vhmm_batch_submit: dev=virtio0 cookie=0x1a queue=2 trigger=cpu_fault direction=to_system entries=2 bytes=8192
 sort-107   [000] .....     4.000300: vhmm_batch_done: dev=virtio0 cookie=0x1a queue=2 direction=to_system result=ok entries=2 entries_ok=2 bytes=8192 ns=200000
 sort-107   [000] .....     4.000310: vhmm_fault: dev=virtio0 trigger=cpu_fault address=0x7f00 result=ok bytes=8192 ns=250000
 sort-107   [001] .....     4.000400: vhmm_skip: dev=virtio0 trigger=user reason=hole range=0x1000-0x3000 pages=2
 hmmctl-9   [000] .....     4.000500: tracing_mark_write: hmm_look: pid=107 name=sort
 hmmctl-9   [000] .....     4.000500: tracing_mark_write: hmm_blocks: pid=107 200000:512:0:1
";

    fn data(page: &str) -> Value {
        element(page, "data-0")
    }

    fn element(page: &str, id: &str) -> Value {
        let (_, rest) = page.split_once(&format!("id=\"{id}\">")).unwrap();
        let (json, _) = rest.split_once("</script>").unwrap();
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn the_page_is_complete_and_links_are_right() {
        let trace = [
            json!({"name":"thread_name","ph":"M","pid":1,"tid":2,"args":{"name":"urgent"}}),
            json!({"name":"to_system","cat":"batch","ph":"X","pid":1,"tid":2,"ts":9_000_150.0,"dur":80.0,"args":{"cookie":"0x1a","status":"ok"}}),
        ];
        let page = report(&Recording::read(TEXT, None).unwrap(), &trace);
        assert!(!page.contains("{{"), "a part is missing");
        assert!(page.contains("Copyright (c) 2022 Leon Sorokin"));
        // Nothing is fetched.
        assert!(!page.contains("src=") && !page.contains("<link"));
        let data = data(&page);
        assert_eq!(data["command"], "sh -c </script><script>alert(1)</script>");
        let items = data["items"].as_array().unwrap();
        let kind = |item: &Value| {
            data["kinds"][item[4].as_u64().unwrap() as usize]["name"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        let of_kind = |name: &str| items.iter().position(|item| kind(item) == name).unwrap();
        let (fault, batch, execution) = (of_kind("fault"), of_kind("batch"), of_kind("execution"));
        assert_eq!(items[fault][5], batch);
        assert_eq!(items[batch][5], execution);
        assert_eq!(items[execution][5], batch);
        assert_eq!(data["causes"][batch.to_string()], fault);
        // The fault began first: 60 us before its end at 310 us less the 250 us that it took.
        assert_eq!(items[fault][2], 0.0);
        assert_eq!(data["skipped"][0]["pages"], 2);
        assert_eq!(data["residency"]["rows"][0]["address"], "0x200000");
    }

    #[test]
    fn a_recording_without_the_devices_trace_has_no_executions() {
        let page = report(&Recording::read(TEXT, None).unwrap(), &[]);
        let data = data(&page);
        assert!(data["clock_us"].is_null());
        assert_eq!(data["items"].as_array().unwrap().len(), 3);
    }

    #[test]
    fn a_collection_has_all_recordings_and_results() {
        let part = |name: &str| Part {
            name: name.to_owned(),
            recording: Recording::read(TEXT, None).unwrap(),
            trace: Vec::new(),
        };
        let results = Results {
            heads: vec!["case".to_owned(), "result".to_owned()],
            rows: vec![Row {
                cells: vec!["fork/<b>".to_owned(), "failed".to_owned()],
                state: State::Bad,
                text: "because".to_owned(),
                part: Some(1),
                case: Some("fork/<b>".to_owned()),
            }],
        };
        let page = collection("all", &results, &[part("first"), part("second")]);
        assert!(!page.contains("{{"), "a part is missing");
        let contents = element(&page, "contents");
        assert_eq!(contents["title"], "all");
        assert_eq!(contents["parts"], json!(["first", "second"]));
        assert_eq!(contents["results"]["rows"][0]["state"], "bad");
        assert_eq!(contents["results"]["rows"][0]["cells"][0], "fork/<b>");
        assert_eq!(element(&page, "data-0"), element(&page, "data-1"));
        let none = collection("none", &Results::default(), &[]);
        assert!(!none.contains("data-0\">"), "there is a recording");
    }

    #[test]
    fn the_page_has_each_part_once() {
        for mark in [
            "{{uplot.css}}",
            "{{report.css}}",
            "{{uplot.licence}}",
            "{{contents}}",
            "{{data}}",
            "{{uplot.js}}",
            "{{report.js}}",
        ] {
            assert_eq!(PAGE.matches(mark).count(), 1, "{mark}");
        }
    }
}
