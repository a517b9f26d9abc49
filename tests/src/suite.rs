// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One boot that runs cases in the guest. Each result can be waited for as soon as the guest reports it.

use crate::boots::{Boot, Queue, Weight};
use crate::excerpt;
use crate::ktap::{CaseResult, KtapError, Outcome, Reader};
use crate::recording::Recording;
use crate::splat::Rules;
use anyhow::{Context, ensure};
use hmm_vm::Artifacts;
use hmm_vm::guest::{BootSpec, Finished, Guest, Load};
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long all cases together may take, without what some are asked to take.
pub const LIMIT: Duration = Duration::from_secs(7200);

/// The names of all cases, as the program that runs them in the guest knows them.
///
/// # Errors
/// When the program cannot be run here.
pub fn all_cases(artifacts: &Artifacts) -> anyhow::Result<Vec<String>> {
    let output = Command::new(&artifacts.agent)
        .arg("--list-cases")
        .output()
        .map_err(|error| anyhow::anyhow!("cannot run {}: {error}", artifacts.agent.display()))?;
    anyhow::ensure!(
        output.status.success(),
        "{} cannot list its cases: {}",
        artifacts.agent.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    let names: Vec<String> = String::from_utf8(output.stdout)?
        .lines()
        .map(str::to_owned)
        .collect();
    anyhow::ensure!(!names.is_empty(), "the guest has no cases");
    Ok(names)
}

/// A boot in the background.
pub struct Suite {
    shared: Arc<Shared>,
    boot: Boot<()>,
}

/// What a suite boots, and what it runs there.
#[derive(Clone)]
pub struct Plan {
    /// What the guest is made of.
    pub artifacts: Artifacts,
    /// The guest.
    pub spec: BootSpec,
    /// What must not be in the kernel's log.
    pub rules: Rules,
    /// The names of the cases.
    pub cases: Vec<String>,
    /// For cases that would go on for any time, and how thorough all are.
    pub load: Load,
    /// How long all cases together may take, without what `load` asks for: [`LIMIT`] unless they are few.
    pub limit: Duration,
    /// Where the recording goes, if one is wanted.
    pub recording: Option<Recording>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    reader: Reader,
    /// The first line that made no sense. Nothing after it counts.
    nonsense: Option<KtapError>,
    /// The boot's end: what went wrong with it as a whole, if anything.
    end: Option<Result<(), String>>,
    folder: Option<PathBuf>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.notify_all();
        result
    }

    /// Waits until there is an answer.
    fn wait_for<T>(&self, mut answer: impl FnMut(&State) -> Option<T>) -> T {
        let mut state = self.lock();
        loop {
            if let Some(answer) = answer(&state) {
                return answer;
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Suite {
    /// Adds a boot to the queue; it runs when the queue is started.
    pub fn queued(queue: &Queue, weight: Weight, plan: Plan) -> Self {
        let shared = Arc::new(Shared::default());
        let background = Arc::clone(&shared);
        let boot = queue.add(weight, move || {
            // Those that wait for a result must see the end in any case.
            let end = catch_unwind(AssertUnwindSafe(|| boot(&plan, &background)))
                .unwrap_or_else(|_| Err("the boot's thread panicked".to_owned()));
            background.change(|state| state.end = Some(end.clone()));
            end
        });
        Self { shared, boot }
    }

    /// Boots now.
    pub fn start(plan: Plan) -> Self {
        let queue = Queue::new(NonZeroUsize::MIN);
        let suite = Self::queued(&queue, Weight::Busy, plan);
        queue.start();
        suite
    }

    /// Waits for the result of a case.
    ///
    /// # Errors
    /// Why there is none.
    pub fn result(&self, case: &str) -> Result<CaseResult, String> {
        self.boot.start();
        self.shared.wait_for(|state| {
            if let Some(result) = state
                .reader
                .results()
                .iter()
                .find(|result| result.name == case)
            {
                return Some(Ok(result.clone()));
            }
            state.end.is_some().then(|| Err(state.why_missing(case)))
        })
    }

    /// Whether the guest ended while it ran this case, and why. Waits for the result or the end.
    pub fn death_in(&self, case: &str) -> Option<String> {
        let missing = self.result(case).err()?;
        let state = self.shared.lock();
        (state.reader.in_flight() == Some(case)).then_some(missing)
    }

    /// Waits for the end of the boot.
    ///
    /// # Errors
    /// What was wrong with it: results that are missing, a guest that did not end well, or a splat.
    pub fn end(&self) -> Result<(), String> {
        self.boot.wait()
    }

    /// Waits for the end of the boot, in which these cases must pass.
    ///
    /// # Errors
    /// The first case that did not pass, or what was wrong with the boot as a whole.
    pub fn expect_all_passed(&self, cases: &[&str]) -> anyhow::Result<()> {
        let results: Vec<_> = cases.iter().map(|case| self.result(case)).collect();
        let ended = self.end().map_err(anyhow::Error::msg);
        let logs = || format!("logs: {:?}", self.folder().unwrap_or_default());
        for result in results {
            let result = result.map_err(anyhow::Error::msg).with_context(logs)?;
            ensure!(
                result.outcome == Outcome::Passed,
                "{}: {:?}\n{}\n{}",
                result.name,
                result.outcome,
                result.remarks.join("\n"),
                logs()
            );
        }
        ended.with_context(logs)
    }

    /// The folder with the boot's logs, once there is one.
    pub fn folder(&self) -> Option<PathBuf> {
        self.shared.lock().folder.clone()
    }
}

impl State {
    fn why_missing(&self, case: &str) -> String {
        let end = match &self.end {
            Some(Err(text)) => text.as_str(),
            _ => "the guest gave no result",
        };
        match self.reader.in_flight() {
            Some(name) if name == case => {
                format!(
                    "the guest ended in this case\n{}\n{end}",
                    self.reader.remarks().join("\n")
                )
            }
            Some(name) => format!("did not run: the guest ended in {name}\n{end}"),
            None => format!("did not run\n{end}"),
        }
    }
}

/// Boots, runs the cases, powers off, and looks at the log.
fn boot(plan: &Plan, shared: &Arc<Shared>) -> Result<(), String> {
    let Plan {
        artifacts,
        spec,
        rules,
        cases,
        load,
        limit,
        recording,
    } = plan;
    let filter: Vec<String> = cases.iter().map(|name| format!("={name}")).collect();
    let mut guest = Guest::boot(artifacts, spec).map_err(|error| error.to_string())?;
    // A case that fails needs the logs. They are removed at the end if all is well.
    guest.keep_folder();
    let folder = guest.folder().to_owned();
    shared.change(|state| state.folder = Some(folder.clone()));
    let sink = Sink::new(shared, &folder).map_err(|error| error.to_string())?;
    let cases = guest.cases(
        &filter,
        Load {
            record: recording.is_some(),
            ..*load
        },
        Box::new(sink),
        Some(*limit * load.depth.patience() + load.duration() + load.time_of_kills()),
    );
    if cases.is_ok()
        && let Some(recording) = recording
        && let Err(error) = recording.fetch(&mut guest)
    {
        // The results are right without it.
        eprintln!("warning: {error:#}");
    }
    let finished = cases.and_then(|()| guest.power_off());
    let plan = {
        let state = shared.lock();
        match &state.nonsense {
            Some(error) => Err(error.clone()),
            None => state.reader.end(),
        }
    };
    let mut problems: Vec<String> = Vec::new();
    problems.extend(finished.as_ref().err().map(ToString::to_string));
    problems.extend(plan.err().map(|error| format!("results: {error}")));
    problems.extend(splats(rules, &folder, finished.as_ref().ok()));
    if finished.is_err() {
        problems.push(format!(
            "the end of the kernel's log:\n{}",
            excerpt::end(&folder)
        ));
    }
    if problems.is_empty() {
        let all_is_well = shared
            .lock()
            .reader
            .results()
            .iter()
            .all(|result| matches!(result.outcome, Outcome::Passed | Outcome::Skipped(_)));
        if all_is_well {
            // A folder that stays is no failure.
            let _ = std::fs::remove_dir_all(&folder);
        }
        Ok(())
    } else {
        Err(problems.join("\n"))
    }
}

fn splats(rules: &Rules, folder: &Path, finished: Option<&Finished>) -> Vec<String> {
    let log = match finished {
        Some(finished) => finished.serial_log(),
        None => std::fs::read(folder.join("serial.log"))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
    };
    let log = match log {
        Ok(log) => log,
        Err(error) => return vec![format!("the kernel's log cannot be read: {error}")],
    };
    // A log without the kernel's first line is none, and no splat in it means nothing.
    if !log.contains("Linux version") {
        return vec!["the kernel's log is empty".to_owned()];
    }
    let splats: Vec<String> = rules
        .scan(&log)
        .into_iter()
        .map(|splat| format!("kernel log, line {}:\n{}", splat.line, splat.text))
        .collect();
    if !splats.is_empty() {
        // The folder stays in any case; this file is for those who look only for the splats.
        let _ = std::fs::write(folder.join("splats.txt"), splats.join("\n\n"));
    }
    splats
}

/// Takes the guest's KTAP: to the reader line by line, and to a file as it is.
struct Sink {
    shared: Arc<Shared>,
    file: std::fs::File,
    partial: Vec<u8>,
}

impl Sink {
    fn new(shared: &Arc<Shared>, folder: &Path) -> io::Result<Self> {
        Ok(Self {
            shared: Arc::clone(shared),
            file: std::fs::File::create(folder.join("result.ktap"))?,
            partial: Vec::new(),
        })
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all(bytes)?;
        self.partial.extend_from_slice(bytes);
        while let Some(end) = self.partial.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.partial.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line).into_owned();
            self.shared.change(|state| {
                if state.nonsense.is_none() {
                    state.nonsense = state.reader.line(&line).err();
                }
            });
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::{Shared, Sink};
    use crate::ktap::{KtapError, Outcome};
    use std::io::Write;
    use std::sync::Arc;

    #[test]
    fn results_are_known_as_soon_as_their_line_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        let shared = Arc::new(Shared::default());
        let mut sink = Sink::new(&shared, folder.path()).unwrap();
        sink.write_all(b"KTAP version 1\n1..2\nok 1 a\nnot o")
            .unwrap();
        assert_eq!(shared.lock().reader.results().len(), 1);
        sink.write_all(b"k 2 b\n").unwrap();
        assert_eq!(shared.lock().reader.results()[1].outcome, Outcome::Failed);
        sink.write_all(b"[ 1.0] kernel text\nok 3 c\n").unwrap();
        assert!(matches!(
            shared.lock().nonsense,
            Some(KtapError::Unknown(_))
        ));
        let file = std::fs::read_to_string(folder.path().join("result.ktap")).unwrap();
        assert!(file.ends_with("ok 3 c\n"));
    }

    #[test]
    fn a_missing_result_says_where_the_guest_ended() {
        let shared = Shared::default();
        shared.change(|state| {
            for line in ["KTAP version 1", "1..3", "# start a", "# half way"] {
                state.reader.line(line).unwrap();
            }
            state.end = Some(Err("the kernel panicked".to_owned()));
        });
        let state = shared.lock();
        let a = state.why_missing("a");
        assert!(
            a.contains("ended in this case") && a.contains("half way") && a.contains("panicked")
        );
        assert!(state.why_missing("b").contains("the guest ended in a"));
    }
}
