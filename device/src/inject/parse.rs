// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Faults as users write them, and the checks on them. `docs/device-control.md` is the prose of this file.

use std::time::Duration;

use hmm_protocol::{JobKind, MapOp, Op, ReportKind, Status};
use serde::{Deserialize, Serialize};

use super::{
    action::{Action, QueueScope, Step, Unit, queue_by_name, report_name},
    config_field::ConfigField,
    error::FaultError,
    trigger::{Trigger, When},
};

const MAX_DELAY: Duration = Duration::from_secs(3600);

/// A fault as one JSON object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FaultSpec {
    /// What it does: `fail`, `delay`, `shorten`, `drop`, `duplicate`, `reorder`, `corrupt`, `cookie`, `stall`,
    /// `hang`, `poison`, `config` or `die`.
    pub action: String,
    /// `batch` or `entry`, for `fail` and `delay`; `job`, also for `corrupt`; `report`, for `delay`, `drop`, `duplicate` and
    /// `cookie`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on: Option<String>,
    /// Only this operation: `to_device`, `to_system`, `copy`, `fill` or `nop`; `map`, `unmap`, `protect`, `resume` or `fail`; or
    /// a kind of job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub op: Option<String>,
    /// Only this queue: `urgent`, `bulk` (all), `bulk0`, `bulk1` …, `mmu`, `report`, `job` (all), `job0`, `job1` …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// Only the n-th in scope, counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nth: Option<u64>,
    /// Every n-th in scope.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every: Option<u64>,
    /// Each in scope with this probability, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fraction: Option<f64>,
    /// Seed of `fraction`; 0 if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// At most so many times.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Of `fail`: the name of the status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Of `delay`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub microseconds: Option<u64>,
    /// Of `shorten`: the used length. Of `poison`: bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub length: Option<u64>,
    /// Of `poison`: offset in device memory, bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<u64>,
    /// Of `corrupt`: the byte within the entry; 0 if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// Of `config`: the field's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Of `config`: the field's value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<u64>,
    /// Of `die`: `before-copy`, `after-copy`, `after-record` or `after-used`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
}

type Checked = (Action, Unit, Option<&'static str>, QueueScope, Trigger);

impl FaultSpec {
    /// The first byte that it poisons, if it does.
    pub fn poisoned(&self) -> Option<u64> {
        match self.action() {
            Ok((Action::Poison { start, .. }, _)) => Some(start),
            _ => None,
        }
    }

    /// The fault that the object describes.
    pub(super) fn check(&self) -> Result<Checked, FaultError> {
        let (action, allowed) = self.action()?;
        self.refuse_strangers(allowed)?;
        let unit = self.unit(action)?;
        let op = self.op.as_deref().map(op_by_name).transpose()?;
        let queue = match self.queue.as_deref() {
            None => QueueScope::Any,
            Some(name) => queue_by_name(name)
                .ok_or_else(|| {
                let expected = "'urgent', 'bulk', 'bulk0' to 'bulk15', 'mmu', 'report', 'job' or 'job0' to 'job15'";
                unknown("queue", expected, name)
            })?,
        };
        Ok((action, unit, op, queue, self.trigger()?))
    }

    /// What it counts.
    fn unit(&self, action: Action) -> Result<Unit, FaultError> {
        let (expected, found) = match (self.on.as_deref(), action) {
            (None, Action::Hang) => return Ok(Unit::Job),
            (None, Action::Fail(_) | Action::Corrupt(_)) => return Ok(Unit::Entry),
            (None, _) => return Ok(Unit::Batch),
            (Some(on), Action::Fail(_)) => match on {
                "batch" => return Ok(Unit::Batch),
                "entry" => return Ok(Unit::Entry),
                "job" => return Ok(Unit::Job),
                _ => ("'batch', 'entry' or 'job'", on),
            },
            (Some(on), Action::Delay(_)) => match on {
                "batch" => return Ok(Unit::Batch),
                "entry" => return Ok(Unit::Entry),
                "job" => return Ok(Unit::Job),
                "report" => return Ok(Unit::Report),
                _ => ("'batch', 'entry', 'job' or 'report'", on),
            },
            (Some(on), Action::Corrupt(_)) => match on {
                "entry" => return Ok(Unit::Entry),
                "job" => return Ok(Unit::Job),
                _ => ("'entry' or 'job'", on),
            },
            (Some(on), _) => match on {
                "batch" => return Ok(Unit::Batch),
                "report" => return Ok(Unit::Report),
                _ => ("'batch' or 'report'", on),
            },
        };
        Err(unknown("on", expected, found))
    }

    /// The action, and which fields it takes beside those of scope and trigger.
    fn action(&self) -> Result<(Action, &'static [&'static str]), FaultError> {
        let need = |field: &'static str, value: Option<u64>| {
            value.ok_or_else(|| FaultError::Missing {
                action: self.action.clone(),
                field,
            })
        };
        Ok(match self.action.as_str() {
            "fail" => {
                let name = self.status.as_deref().unwrap_or("internal");
                let status = Status::ALL
                    .into_iter()
                    .filter(|status| !matches!(status, Status::Ok | Status::NotAttempted))
                    .find(|status| status.name() == name)
                    .ok_or_else(|| FaultError::Status(name.to_owned()))?;
                (Action::Fail(status), &["on", "status"])
            }
            "delay" => {
                let time = Duration::from_micros(need("microseconds", self.microseconds)?);
                if time > MAX_DELAY {
                    return Err(FaultError::Delay);
                }
                (Action::Delay(time), &["on", "microseconds"])
            }
            "shorten" => {
                let length = u32::try_from(need("length", self.length)?)
                    .map_err(|_| FaultError::UsedLength)?;
                (Action::Shorten(length), &["length"])
            }
            "drop" => (Action::Drop, &["on"]),
            "duplicate" => (Action::Duplicate, &["on"]),
            "reorder" => (Action::Reorder, &[]),
            "corrupt" => (Action::Corrupt(self.offset.unwrap_or(0)), &["on", "offset"]),
            "cookie" => (Action::Cookie, &["on"]),
            "stall" => (Action::Stall, &[]),
            "hang" => (Action::Hang, &[]),
            "poison" => {
                let (start, length) = (need("start", self.start)?, need("length", self.length)?);
                if length == 0 || start.checked_add(length).is_none() {
                    return Err(FaultError::Range);
                }
                (Action::Poison { start, length }, &["start", "length"])
            }
            "config" => {
                let name = self.field.as_deref().unwrap_or_default();
                let field = ConfigField::by_name(name).ok_or_else(|| {
                    let names = ConfigField::names().join(", ");
                    unknown("field", &format!("one of {names}"), name)
                })?;
                (
                    Action::Config(field, need("value", self.value)?),
                    &["field", "value"],
                )
            }
            "die" => {
                let step = match self.step.as_deref() {
                    None | Some("before-copy") => Step::BeforeCopy,
                    Some("after-copy") => Step::AfterCopy,
                    Some("after-record") => Step::AfterRecord,
                    Some("after-used") => Step::AfterUsed,
                    Some(other) => {
                        return Err(unknown(
                            "step",
                            "before-copy, after-copy, after-record or after-used",
                            other,
                        ));
                    }
                };
                (Action::Die(step), &["step"])
            }
            "" => return Err(FaultError::NoAction),
            other => return Err(FaultError::UnknownAction(other.to_owned())),
        })
    }

    /// A field that the action does not take is a mistake, not a wish.
    fn refuse_strangers(&self, allowed: &[&str]) -> Result<(), FaultError> {
        let given = [
            ("on", self.on.is_some()),
            ("status", self.status.is_some()),
            ("microseconds", self.microseconds.is_some()),
            ("length", self.length.is_some()),
            ("start", self.start.is_some()),
            ("offset", self.offset.is_some()),
            ("field", self.field.is_some()),
            ("value", self.value.is_some()),
            ("step", self.step.is_some()),
        ];
        match given
            .into_iter()
            .find(|(name, given)| *given && !allowed.contains(name))
        {
            Some((field, _)) => Err(FaultError::Unwanted {
                action: self.action.clone(),
                field,
            }),
            None => Ok(()),
        }
    }

    fn trigger(&self) -> Result<Trigger, FaultError> {
        let when = match (self.nth, self.every, self.fraction) {
            (None, None, None) => When::Always,
            (Some(nth), None, None) if nth > 0 => When::Nth(nth),
            (None, Some(every), None) if every > 0 => When::Every(every),
            (None, None, Some(fraction)) if (0.0..=1.0).contains(&fraction) => {
                When::Fraction(fraction)
            }
            _ => {
                return Err(FaultError::Trigger);
            }
        };
        Ok(Trigger::new(
            when,
            self.count.unwrap_or(u64::MAX),
            self.seed.unwrap_or(0),
        ))
    }
}

/// The name of an operation. Some are those of an entry's operation and of a kind of job: the queue tells which.
fn op_by_name(name: &str) -> Result<&'static str, FaultError> {
    let copies = [Op::ToDevice, Op::ToSystem, Op::Copy, Op::Fill, Op::Nop].map(Op::name);
    let maps = [
        MapOp::Map,
        MapOp::Unmap,
        MapOp::Protect,
        MapOp::Resume,
        MapOp::Fail,
    ]
    .map(MapOp::name);
    let mut names: Vec<&'static str> =
        [&copies[..], &maps, &JobKind::ALL.map(JobKind::name)].concat();
    names.extend([ReportKind::Fault, ReportKind::JobEnd].map(report_name));
    names.dedup();
    (names.iter().copied().find(|known| *known == name))
        .ok_or_else(|| unknown("op", &format!("one of {}", names.join(", ")), name))
}

fn unknown(field: &'static str, expected: &str, found: &str) -> FaultError {
    FaultError::Name {
        field,
        expected: expected.to_owned(),
        found: found.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{FaultError, FaultSpec};

    fn check(json: &str) -> serde_json::Result<Result<(), FaultError>> {
        let spec: FaultSpec = serde_json::from_str(json)?;
        Ok(spec.check().map(|_| ()))
    }

    #[test]
    fn every_documented_fault_is_taken() {
        for json in [
            r#"{"action":"fail"}"#,
            r#"{"action":"fail","status":"poison","on":"batch","queue":"urgent","nth":2}"#,
            r#"{"action":"delay","microseconds":500,"on":"entry","op":"to_system","every":3}"#,
            r#"{"action":"shorten","length":8}"#,
            r#"{"action":"drop","fraction":0.5,"seed":7,"count":3}"#,
            r#"{"action":"duplicate"}"#,
            r#"{"action":"reorder"}"#,
            r#"{"action":"corrupt","offset":17,"op":"to_device"}"#,
            r#"{"action":"cookie"}"#,
            r#"{"action":"stall","queue":"bulk0"}"#,
            r#"{"action":"poison","start":0,"length":4096}"#,
            r#"{"action":"config","field":"magic","value":0}"#,
            r#"{"action":"die","step":"after-record"}"#,
            r#"{"action":"fail","on":"job","status":"unmapped","op":"walk"}"#,
            r#"{"action":"delay","on":"job","microseconds":5,"queue":"job1"}"#,
            r#"{"action":"corrupt","on":"job","op":"crc32c","offset":3}"#,
            r#"{"action":"hang","nth":2}"#,
            r#"{"action":"delay","on":"report","microseconds":5,"op":"fault"}"#,
            r#"{"action":"drop","on":"report","op":"job-end"}"#,
            r#"{"action":"duplicate","on":"report"}"#,
            r#"{"action":"cookie","on":"report"}"#,
        ] {
            assert_eq!(check(json).expect("a fault"), Ok(()), "{json}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for json in [
            r#"{}"#,
            r#"{"action":"explode"}"#,
            r#"{"action":"fail","status":"ok"}"#,
            r#"{"action":"fail","status":"tired"}"#,
            r#"{"action":"fail","nth":1,"every":2}"#,
            r#"{"action":"fail","nth":0}"#,
            r#"{"action":"fail","fraction":1.5}"#,
            r#"{"action":"fail","queue":"bulk99"}"#,
            r#"{"action":"fail","op":"move"}"#,
            r#"{"action":"delay"}"#,
            r#"{"action":"delay","microseconds":99999999999}"#,
            r#"{"action":"shorten","length":4294967296}"#,
            r#"{"action":"drop","on":"entry"}"#,
            r#"{"action":"drop","on":"job"}"#,
            r#"{"action":"corrupt","on":"report"}"#,
            r#"{"action":"hang","on":"job"}"#,
            r#"{"action":"fail","on":"report"}"#,
            r#"{"action":"poison","start":0,"length":0}"#,
            r#"{"action":"poison","start":18446744073709551615,"length":2}"#,
            r#"{"action":"config","field":"colour","value":1}"#,
            r#"{"action":"config","field":"magic"}"#,
            r#"{"action":"die","step":"later"}"#,
            r#"{"action":"drop","wish":1}"#,
        ] {
            assert!(!matches!(check(json), Ok(Ok(()))), "{json} was taken");
        }
    }
}
