// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask demo device`: a C program builds data structures with `malloc` and calls its own functions on the device, with
//! the pointers that the CPU has.
//!
//! The program is `guest-driver/uapi/examples/structures`. It compares every answer with the CPU's by itself, and fails if one
//! differs. It runs with its memory in place, and again with memory that moves to the device when the device touches it.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use hmm_control::plan;
use hmm_vm::Progress;
use hmm_vm::guest::{Command, Guest, Root};
use serde::{Deserialize, Serialize};

use crate::guest_arguments::GuestArguments;
use crate::{build, signals, surroundings};

/// What the program builds, and what is called on the device.
const STRUCTURES: [(&str, &str); 3] = [
    ("btree", "B-tree: look up, change"),
    ("join", "hash join by four harts"),
    ("bfs", "breadth-first search"),
];

/// Arguments of `demo device`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    guest: GuestArguments,
    /// Elements of each structure; the program's own choice without it.
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    size: u64,
    /// Write the figures to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What the program prints. Times are those of the guest and of the device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Figures {
    structure: String,
    size: u64,
    answer: u64,
    heap_bytes: u64,
    device_faults: u64,
    instructions: u64,
    device_ns: u64,
    cpu_ns: u64,
    bytes_to_device: u64,
    bytes_to_system: u64,
}

/// All figures of one structure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Pair {
    what: &'static str,
    in_place: Figures,
    moving: Figures,
}

impl Pair {
    /// What the demonstration was to show and did not.
    fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        let mut check = |good: bool, text: &str| {
            if !good {
                failures.push(format!("{}: {text}", self.what));
            }
        };
        let (place, moving) = (&self.in_place, &self.moving);
        check(
            place.answer == moving.answer,
            "the two runs have different answers",
        );
        check(
            place.device_faults > 0 && moving.device_faults > 0,
            "the device had no page fault",
        );
        check(
            place.bytes_to_device == 0,
            "memory moved that was to stay in place",
        );
        check(moving.bytes_to_device > 0, "no memory moved to the device");
        failures
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            out,
            "  {} of {} elements, {} of memory",
            self.what,
            self.in_place.size,
            mebibytes(self.in_place.heap_bytes)
        )?;
        for (name, figures) in [("in place", &self.in_place), ("moving", &self.moving)] {
            writeln!(
                out,
                "    {name:<10} answer {} (the CPU's too), {} device faults, {} moved to the device, {} back",
                figures.answer,
                figures.device_faults,
                mebibytes(figures.bytes_to_device),
                mebibytes(figures.bytes_to_system)
            )?;
        }
        Ok(())
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// Runs the demonstration; the code says whether it showed what it is to show.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let progress = Progress::new();
    let setup = &arguments.guest.setup;
    let mut artifacts = build::artifacts(setup, &progress)?;
    artifacts.device_program = Some(hmm_vm::device_program(&setup.options(), &progress)?);

    // From here on, a Ctrl-C is the guest's.
    let interrupts = signals::forward()?;
    let spec = arguments.guest.spec("demo-device", &interrupts)?;
    let step = progress.step("boot the guest", None);
    let mut guest = Guest::boot(&artifacts, &spec)?;
    step.finish(&format!(
        "Linux {}, accelerator {}",
        guest.hello().kernel,
        guest.accelerator()
    ));
    let mut pairs = Vec::new();
    for (structure, what) in STRUCTURES {
        let step = progress.step(what, None);
        let mut run = |mode| figures(&mut guest, arguments, structure, mode);
        let (in_place, moving) = (run("stay")?, run("move")?);
        step.finish(&format!("answer {}", in_place.answer));
        pairs.push(Pair {
            what,
            in_place,
            moving,
        });
    }
    println!();
    for pair in &pairs {
        print!("{pair}");
    }
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&pairs)?;
        fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    let failures: Vec<_> = pairs.iter().flat_map(Pair::failures).collect();
    for failure in &failures {
        eprintln!("error: {failure}");
    }
    if failures.is_empty() {
        guest.power_off()?;
        return Ok(ExitCode::SUCCESS);
    }
    guest.keep_folder();
    eprintln!("logs: {}", guest.folder().display());
    Ok(ExitCode::FAILURE)
}

/// Runs the program once.
fn figures(
    guest: &mut Guest,
    arguments: &Arguments,
    structure: &str,
    mode: &str,
) -> anyhow::Result<Figures> {
    let size = arguments.size.to_string();
    let words = [plan::DEVICE_PROGRAM, "/dev/hmm0", structure, &size, mode];
    let command = Command {
        argv: words.map(Into::into).to_vec(),
        env: surroundings::hermetic_environment(),
        cwd: "/".into(),
        root: Root::Image,
        terminal: None,
        limit: arguments.guest.timeout,
    };
    let output = guest.output(&command)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.end.shell_code() != 0 {
        guest.keep_folder();
        bail!(
            "{} ended with {:?}: {said}\nlogs: {}",
            words.join(" "),
            output.end,
            guest.folder().display()
        );
    }
    serde_json::from_slice(&output.stdout).with_context(|| {
        format!(
            "{} printed what was not expected: {}{said}",
            words.join(" "),
            String::from_utf8_lossy(&output.stdout)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> Pair {
        let figures = |bytes| Figures {
            structure: "btree".to_owned(),
            size: 10,
            answer: 7,
            heap_bytes: 4096,
            device_faults: 3,
            instructions: 100,
            device_ns: 5,
            cpu_ns: 5,
            bytes_to_device: bytes,
            bytes_to_system: 0,
        };
        Pair {
            what: "B-tree",
            in_place: figures(0),
            moving: figures(1 << 21),
        }
    }

    #[test]
    fn every_way_to_show_nothing_is_a_failure() {
        assert!(pair().failures().is_empty());
        let spoilt: [fn(&mut Pair); 5] = [
            |pair| pair.moving.answer += 1,
            |pair| pair.in_place.device_faults = 0,
            |pair| pair.moving.device_faults = 0,
            |pair| pair.in_place.bytes_to_device = 4096,
            |pair| pair.moving.bytes_to_device = 0,
        ];
        for spoil in spoilt {
            let mut pair = pair();
            spoil(&mut pair);
            assert_eq!(pair.failures().len(), 1, "{pair:?}");
        }
    }

    #[test]
    fn both_runs_are_shown() {
        let text = pair().to_string();
        assert!(text.contains("in place   answer 7 (the CPU's too), 3 device faults, 0.0 MiB"));
        assert!(text.contains("moving     answer 7"));
    }
}
