// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The timeline: what happened when, in lanes, and what belongs together.

use super::{Period, begin};
use crate::clock::{Clock, Span};
use crate::device;
use crate::guest::GuestEvent;
use crate::recording::{Case, Recording};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The lanes, what is in them, and how it belongs together.
#[derive(Serialize)]
pub(super) struct Timeline {
    lanes: Vec<Lane>,
    kinds: Vec<Kind>,
    /// Sorted by lane and beginning.
    items: Vec<Item>,
    /// For a batch: the fault that it serves. Both are places in `items`.
    causes: BTreeMap<usize, usize>,
}

#[derive(Serialize)]
struct Lane {
    name: String,
    /// As many things as happen at once.
    rows: usize,
}

/// What is told of things of one kind.
#[derive(Serialize)]
struct Kind {
    name: &'static str,
    fields: Vec<&'static str>,
}

/// Lane, row, beginning and length in milliseconds, kind, place of what it leads to or -1, values of the kind's fields.
#[derive(Serialize)]
struct Item(usize, usize, f64, f64, usize, i64, Vec<Value>);

/// No lane has more rows; what is too much shares the last.
const MOST_ROWS: usize = 6;

/// What the fields of a kind are, and of which events it is.
const KINDS: [(&str, &str, &[&str]); 10] = [
    (
        "batch",
        "batch_done",
        &[
            "direction",
            "trigger",
            "result",
            "bytes",
            "entries",
            "entries_ok",
            "queue",
            "cookie",
            "task",
        ],
    ),
    (
        "execution",
        "",
        &[
            "direction",
            "result",
            "bytes",
            "entries_ok",
            "queue",
            "cookie",
        ],
    ),
    ("fault", "fault", &["address", "result", "bytes", "task"]),
    (
        "device fault",
        "device_fault",
        &["address", "access", "result", "pages", "context", "number"],
    ),
    (
        "job",
        "job_end",
        &["result", "address", "amount", "faults", "context", "cookie"],
    ),
    (
        "invalidation",
        "invalidate",
        &["cause", "range", "context", "task"],
    ),
    (
        "eviction",
        "evict",
        &["trigger", "device_address", "bytes", "task"],
    ),
    (
        "skip",
        "skip",
        &["reason", "trigger", "pages", "range", "task"],
    ),
    ("loss", "loss", &["cause", "generation"]),
    // No event: a mark.
    ("case", "", &["name", "result"]),
];

/// The lanes that are no queues, by kind.
const LANES: [(&str, &str); 8] = [
    ("case", "cases"),
    ("fault", "CPU faults"),
    ("device fault", "device faults"),
    ("job", "jobs"),
    ("invalidation", "invalidations"),
    ("eviction", "evictions"),
    ("skip", "skipped"),
    ("loss", "losses"),
];

/// Something with a place on the timeline that is not known yet.
struct Draft {
    /// Lanes are in this order.
    lane: (u8, u64),
    /// On the guest's clock, microseconds.
    start: f64,
    end: f64,
    kind: usize,
    cookie: Option<u64>,
    task: String,
    values: Vec<Value>,
}

const OTHER: u8 = 0;
const DRIVER: u8 = 1;
const DEVICE: u8 = 2;

impl Timeline {
    /// Puts everything in its place. The device's batches are shown where the difference of the clocks is known.
    pub(super) fn new(
        recording: &Recording,
        period: Period,
        trace: &[Value],
        on_device: &BTreeMap<u64, Span>,
        clock: Option<Clock>,
    ) -> Self {
        let mut drafts: Vec<Draft> = recording.events.iter().filter_map(of_event).collect();
        drafts.extend(recording.cases.iter().filter_map(of_case));
        if let Some(clock) = clock {
            let executions = trace.iter().filter_map(|event| of_device(event, clock));
            // What was executed before and after the recording is no part of it.
            let known: BTreeSet<u64> = drafts.iter().filter_map(|draft| draft.cookie).collect();
            drafts.extend(executions.filter(|execution| {
                // Nor is there room for those of batches that were not recorded, where that was so.
                (execution.end >= period.start && execution.start <= period.end)
                    && (recording.lost == 0
                        || execution
                            .cookie
                            .is_some_and(|cookie| known.contains(&cookie)))
            }));
        }
        drafts.sort_by(|a, b| a.lane.cmp(&b.lane).then(a.start.total_cmp(&b.start)));
        let names: BTreeMap<u64, String> = device::queue_names(trace).into_iter().collect();
        let mut lanes: Vec<Lane> = Vec::new();
        let mut items = Vec::with_capacity(drafts.len());
        let mut last = None;
        let mut rows: Vec<f64> = Vec::new();
        for draft in &drafts {
            if last != Some(draft.lane) {
                last = Some(draft.lane);
                rows.clear();
                let name = lane_name(draft.lane, &names);
                lanes.push(Lane { name, rows: 0 });
            }
            let row = free_row(&mut rows, draft);
            let lane = lanes.len().saturating_sub(1);
            lanes[lane].rows = rows.len();
            let start = period.milliseconds(draft.start);
            let length = (period.milliseconds(draft.end) - start).max(0.0);
            items.push(Item(
                lane,
                row,
                start,
                length,
                draft.kind,
                -1,
                draft.values.clone(),
            ));
        }
        let causes = link(&drafts, &mut items, on_device);
        Self {
            lanes,
            kinds: (KINDS.iter())
                .map(|&(name, _, fields)| Kind {
                    name,
                    fields: fields.to_vec(),
                })
                .collect(),
            items,
            causes,
        }
    }
}

/// The first row that is free when something begins.
fn free_row(rows: &mut Vec<f64>, draft: &Draft) -> usize {
    if let Some(row) = rows.iter().position(|&end| end <= draft.start) {
        rows[row] = draft.end;
        return row;
    }
    if rows.len() < MOST_ROWS {
        rows.push(draft.end);
    } else if let Some(end) = rows.last_mut() {
        *end = end.max(draft.end);
    }
    rows.len().saturating_sub(1)
}

/// Leads from faults to their batches, and between batches and their executions. The faults of batches.
fn link(
    drafts: &[Draft],
    items: &mut [Item],
    on_device: &BTreeMap<u64, Span>,
) -> BTreeMap<usize, usize> {
    let kind = |name: &str| KINDS.iter().position(|&(kind, _, _)| kind == name);
    let (batch, execution, fault) = (kind("batch"), kind("execution"), kind("fault"));
    let mut batches = BTreeMap::new();
    let mut of_task: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (place, draft) in drafts.iter().enumerate() {
        if Some(draft.kind) == batch {
            batches.extend(draft.cookie.map(|cookie| (cookie, place)));
            of_task.entry(&draft.task).or_default().push(place);
        }
    }
    for of_task in of_task.values_mut() {
        of_task.sort_by(|&a, &b| drafts[a].start.total_cmp(&drafts[b].start));
    }
    let mut causes = BTreeMap::new();
    for (place, draft) in drafts.iter().enumerate() {
        if Some(draft.kind) == execution {
            let submitted = draft.cookie.and_then(|cookie| batches.get(&cookie));
            if let Some(&submitted) = submitted
                && draft
                    .cookie
                    .is_some_and(|cookie| on_device.contains_key(&cookie))
            {
                items[place].5 = submitted as i64;
                items[submitted].5 = place as i64;
            }
        } else if Some(draft.kind) == fault {
            // The task that faults submits the batch that serves it, and waits for it.
            let of_task = of_task
                .get(draft.task.as_str())
                .map_or(&[][..], Vec::as_slice);
            let first = of_task.partition_point(|&batch| drafts[batch].start < draft.start);
            if let Some(&served) = of_task.get(first)
                && drafts[served].end <= draft.end
            {
                items[place].5 = served as i64;
                causes.insert(served, place);
            }
        }
    }
    causes
}

fn of_event(event: &GuestEvent) -> Option<Draft> {
    let kind = KINDS.iter().position(|&(_, name, _)| name == event.name)?;
    let (name, _, fields) = KINDS[kind];
    let lane = match LANES.iter().position(|&(kind, _)| kind == name) {
        Some(lane) => (OTHER, lane as u64),
        None => (DRIVER, event.number("queue")?),
    };
    let values = fields.iter().map(|&field| match field {
        "task" => json!(event.task),
        "result" if name == "job" => json!(event.word("status")),
        "bytes" | "entries" | "entries_ok" | "pages" | "amount" | "faults" => {
            event.number(field).map_or(json!(""), Value::from)
        }
        field => json!(event.word(field)),
    });
    Some(Draft {
        lane,
        start: begin(event),
        end: event.time,
        kind,
        cookie: event.number("cookie"),
        task: event.task.clone(),
        values: values.collect(),
    })
}

fn of_case(case: &Case) -> Option<Draft> {
    let is_it = |name: &str| name == "case";
    Some(Draft {
        lane: (
            OTHER,
            LANES.iter().position(|&(kind, _)| is_it(kind))? as u64,
        ),
        start: case.start,
        end: case.end,
        kind: KINDS.iter().position(|&(name, _, _)| is_it(name))?,
        cookie: None,
        task: String::new(),
        values: vec![json!(case.name), json!(case.result)],
    })
}

fn of_device(event: &Value, clock: Clock) -> Option<Draft> {
    let (cookie, span) = device::batch(event)?;
    let told = &event["args"];
    let values = [
        event["name"].clone(),
        told["status"].clone(),
        told["bytes"].clone(),
        told["entries_ok"].clone(),
        json!(span.track),
        json!(format!("{cookie:#x}")),
    ];
    Some(Draft {
        lane: (DEVICE, span.track),
        start: clock.to_guest(span.start),
        end: clock.to_guest(span.end),
        kind: KINDS.iter().position(|&(name, _, _)| name == "execution")?,
        cookie: Some(cookie),
        task: String::new(),
        values: (values.into_iter())
            .map(|value| if value.is_null() { json!("") } else { value })
            .collect(),
    })
}

fn lane_name((side, number): (u8, u64), queues: &BTreeMap<u64, String>) -> String {
    if side == OTHER {
        let lane = usize::try_from(number)
            .ok()
            .and_then(|number| LANES.get(number));
        return lane.map_or_else(String::new, |(_, name)| (*name).to_owned());
    }
    let queue = match (queues.get(&number), number) {
        (Some(name), _) => name.clone(),
        (None, 2) => "urgent".to_owned(),
        (None, number) => format!("queue {number}"),
    };
    let side = if side == DRIVER { "driver" } else { "device" };
    format!("{side}: {queue}")
}

#[cfg(test)]
mod tests {
    use super::{Draft, MOST_ROWS, free_row};

    fn draft(start: f64, end: f64) -> Draft {
        Draft {
            lane: (0, 0),
            start,
            end,
            kind: 0,
            cookie: None,
            task: String::new(),
            values: Vec::new(),
        }
    }

    #[test]
    fn what_happens_at_once_is_in_rows_of_its_own() {
        let mut rows = Vec::new();
        assert_eq!(free_row(&mut rows, &draft(0.0, 10.0)), 0);
        assert_eq!(free_row(&mut rows, &draft(5.0, 15.0)), 1);
        assert_eq!(free_row(&mut rows, &draft(10.0, 20.0)), 0);
        assert_eq!(free_row(&mut rows, &draft(16.0, 17.0)), 1);
        let all: Vec<usize> = (0..20)
            .map(|_| free_row(&mut rows, &draft(18.0, 30.0)))
            .collect();
        assert_eq!(rows.len(), MOST_ROWS);
        assert_eq!(all.last(), Some(&(MOST_ROWS - 1)));
    }
}
