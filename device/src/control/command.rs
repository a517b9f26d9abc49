// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The commands of the control socket.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::error::CommandError;
use crate::{device::Device, inject::FaultSpec, logging::LogLevel, stats::prometheus};

/// A command as one JSON object.
#[derive(Debug, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
enum Command {
    /// What the device is and what state it is in.
    Info {},
    /// All counters.
    Stats {
        #[serde(default)]
        format: StatsFormat,
    },
    /// How far the batch queues are.
    Progress {},
    /// Sets all counters to zero.
    StatsReset {},
    /// Adds a fault.
    FaultAdd { fault: Box<FaultSpec> },
    /// Lists the faults with their counts.
    FaultList {},
    /// Removes one fault, or all.
    FaultClear { id: Option<u64> },
    /// Stops serving batches. When the answer comes, none is being executed.
    Pause {},
    /// Goes on serving batches.
    Resume {},
    /// Loses all contents and tells the driver.
    Renew {},
    /// Ends the session; the contents stay, and can be adopted.
    EndSession {},
    /// Turns the trace on or off.
    Trace { on: bool },
    /// Changes the level of the log.
    LogLevel { level: String },
}

/// How statistics are shown.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum StatsFormat {
    #[default]
    Json,
    Prometheus,
}

pub(super) struct Commands {
    device: Arc<Device>,
    level: LogLevel,
}

impl Commands {
    pub(super) fn new(device: Arc<Device>, level: LogLevel) -> Self {
        Self { device, level }
    }

    /// The answer to a line.
    pub(super) fn answer(&self, line: &str) -> String {
        let answer = serde_json::from_str(line)
            .map_err(CommandError::Syntax)
            .and_then(|command| self.execute(command));
        let mut answer = match answer {
            Ok(answer) => answer,
            Err(error) => json!({ "error": error.to_string() }),
        };
        let ok = answer.get("error").is_none();
        if let Value::Object(fields) = &mut answer {
            fields.insert("ok".to_owned(), Value::Bool(ok));
        }
        answer.to_string()
    }

    fn execute(&self, command: Command) -> Result<Value, CommandError> {
        let device = &self.device;
        match command {
            Command::Info {} => Ok(self.info()),
            Command::Stats {
                format: StatsFormat::Json,
            } => serde_json::to_value(device.snapshot())
                .map(|stats| json!({ "stats": stats }))
                .map_err(CommandError::Answer),
            Command::Stats {
                format: StatsFormat::Prometheus,
            } => Ok(json!({ "text": prometheus::text(device.snapshot())? })),
            Command::Progress {} => serde_json::to_value(device.progress())
                .map(|queues| json!({ "queues": queues, "paused": device.is_paused() }))
                .map_err(CommandError::Answer),
            Command::StatsReset {} => {
                device.reset_counters();
                Ok(json!({}))
            }
            Command::FaultAdd { fault } => {
                let id = device.add_fault(*fault)?;
                Ok(json!({ "id": id }))
            }
            Command::FaultList {} => serde_json::to_value(device.engine().faults().list())
                .map(|faults| json!({ "faults": faults }))
                .map_err(CommandError::Answer),
            Command::FaultClear { id } => {
                let cleared = device.engine().faults().clear(id);
                if let (Some(id), 0) = (id, cleared) {
                    return Err(CommandError::NoFault(id));
                }
                // A queue that was stalled may have work.
                device.wake_all();
                Ok(json!({ "cleared": cleared }))
            }
            Command::Pause {} => {
                device.set_paused(true);
                Ok(json!({}))
            }
            Command::Resume {} => {
                device.set_paused(false);
                Ok(json!({}))
            }
            Command::Renew {} => {
                let generation = device.renew()?;
                Ok(json!({ "generation": generation }))
            }
            Command::EndSession {} => {
                device.end_session();
                Ok(json!({}))
            }
            Command::Trace { on } => {
                device.trace().set(on)?;
                Ok(json!({}))
            }
            Command::LogLevel { level } => {
                self.level.set(&level)?;
                Ok(json!({}))
            }
        }
    }

    fn info(&self) -> Value {
        let engine = self.device.engine();
        let identity = engine.memory().identity();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "memory_bytes": engine.memory().bytes(),
            "backing": engine.memory().backing(),
            "uuid": identity.uuid.to_string(),
            "generation": identity.generation,
            "session_open": engine.open_generation().is_some(),
            "bulk_queues": engine.limits().bulk_queues,
            "paused": self.device.is_paused(),
            "copies": engine.copies().names(),
            "copy_routines": engine.copies().measured(),
            "link": engine.link(),
        })
    }
}
