// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The tests that boot guests. `cargo xtask test` makes what they need and runs them.
//!
//! Results of the guest's cases become results of tests, one to one, as they come. One more test for each boot says
//! whether it was sound as a whole.

use hmm_tests::boots::{Boot, Queue, Weight};
use hmm_tests::ktap::Outcome;
use hmm_tests::partition::Partition;
use hmm_tests::recording::Recording;
use hmm_tests::run::{self, RunTest};
use hmm_tests::selection::Selection;
use hmm_tests::splat::Rules;
use hmm_tests::suite::{self, Plan, Suite, all_cases};
use hmm_tests::timing::{Timing, Timings};
use hmm_tests::wrong_devices::{self, WrongDevice};
use hmm_tests::{bounce, controls, ends, excerpt, load, restart, selftest};
use hmm_vm::Artifacts;
use hmm_vm::accel::AcceleratorChoice;
use hmm_vm::guest::{BootSpec, DeviceSpec};
use hmm_vm::machine::Machine;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

/// `auto`, `kvm` or `tcg`.
const ACCELERATOR_VARIABLE: &str = "HMM_ACCEL";
/// Groups of cases that mostly wait for a device that is lost, or does not answer.
const WAITING_GROUPS: [&str; 2] = ["errors/", "loss/"];
/// The test that the others notice what they are there for.
const SELFTEST: &str = "boot/selftest";
/// A boot is worth its time for this many cases and more.
const CASES_PER_BOOT: usize = 20;
/// The environment or the usage is wrong.
const CANNOT_RUN: u8 = 3;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Tests only wait for the results of boots, which run side by side in the background.
    arguments.test_threads = Some(1);
    let trials = Partition::from_environment()
        .map(|partition| Selection::take_from(&mut arguments, partition))
        .and_then(|selection| trials(&selection));
    match trials {
        Ok(trials) => libtest_mimic::run(&arguments, trials).exit_code(),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(CANNOT_RUN)
        }
    }
}

fn trials(selection: &Selection) -> anyhow::Result<Vec<Trial>> {
    let artifacts = Artifacts::from_variable()?.ok_or_else(|| {
        anyhow::anyhow!(
            "{} does not say where the guest's parts are; run `cargo xtask test`",
            hmm_vm::ARTIFACTS_VARIABLE
        )
    })?;
    let accelerator = match std::env::var(ACCELERATOR_VARIABLE) {
        Ok(choice) => choice
            .parse()
            .map_err(|error| anyhow::anyhow!("{ACCELERATOR_VARIABLE}: {error}"))?,
        Err(_) => AcceleratorChoice::default(),
    };
    // A list that makes no sense is an error now and not after a long run.
    let rules = Rules::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../ci"))?;
    let boots = Boots {
        prefix: prefix(&artifacts),
        artifacts,
        accelerator,
        selection,
        rules,
        queue: Queue::from_environment()?,
        timings: Arc::new(Timings::from_environment()?),
    };
    let mut trials = boots.cases(Kind::Working)?;
    if boots.artifacts.controls.is_some() {
        trials.extend(boots.controls()?);
    }
    trials.extend(boots.restart()?);
    trials.extend(boots.cases(Kind::Waiting)?);
    trials.extend(boots.selftest()?);
    trials.extend(boots.bounce_buffers()?);
    trials.extend(boots.wrong_devices());
    trials.extend(boots.runs()?);
    trials.extend(boots.ends()?);
    Ok(trials)
}

/// What the names of tests begin with, so that the same test on two kernels has two names.
fn prefix(artifacts: &Artifacts) -> &'static str {
    match artifacts.environment.kernel.debug {
        true => "debug/",
        false => "",
    }
}

/// Cases that share their boots.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// They move memory.
    Working,
    /// They wait: those of [`WAITING_GROUPS`].
    Waiting,
}

impl Kind {
    fn of(case: &str) -> Self {
        match WAITING_GROUPS.iter().any(|group| case.starts_with(group)) {
            true => Self::Waiting,
            false => Self::Working,
        }
    }

    /// The test of the boots as a whole.
    fn boot(self) -> &'static str {
        match self {
            Self::Working => "boot/cases",
            Self::Waiting => "boot/losses",
        }
    }

    fn weight(self, debug: bool) -> Weight {
        match self {
            Self::Working => Weight::Busy,
            Self::Waiting => of_losses(debug),
        }
    }
}

/// The weight of a boot whose cases lose devices. What the debug kernel checks meanwhile keeps a processor busy for half of
/// the time.
fn of_losses(debug: bool) -> Weight {
    match debug {
        true => Weight::Calm,
        false => Weight::Idle,
    }
}

/// The boots of one kernel, as far as they are chosen. Those that keep all of the host busy come first, and the longest of
/// each kind.
struct Boots<'a> {
    prefix: &'static str,
    artifacts: Artifacts,
    accelerator: AcceleratorChoice,
    selection: &'a Selection,
    rules: Rules,
    queue: Queue,
    timings: Arc<Timings>,
}

impl Boots<'_> {
    fn name(&self, test: &str) -> String {
        format!("{}{test}", self.prefix)
    }

    fn is_chosen(&self, test: &str) -> bool {
        self.selection.contains(&self.name(test))
    }

    fn spec(&self, name: &str) -> anyhow::Result<BootSpec> {
        let mut spec = BootSpec::new(name, Machine::load("q35")?);
        spec.accelerator = self.accelerator;
        Ok(spec)
    }

    /// Queues a boot that takes its time as a whole.
    fn queued<T: Send + 'static>(
        &self,
        test: &str,
        weight: Weight,
        boot: impl FnOnce() -> Result<T, String> + Send + 'static,
    ) -> Boot<T> {
        let (name, timings) = (self.name(test), Arc::clone(&self.timings));
        self.queue.add(weight, move || {
            let started = Instant::now();
            let result = boot();
            timings.add(&Timing {
                name,
                seconds: started.elapsed().as_secs_f64(),
                busy: None,
            });
            result
        })
    }

    /// A test that is a boot of its own.
    fn trial(
        &self,
        test: &str,
        weight: Weight,
        boot: impl FnOnce() -> anyhow::Result<()> + Send + 'static,
    ) -> Trial {
        let boot = self.queued(test, weight, move || {
            boot().map_err(|error| format!("{error:#}"))
        });
        Trial::test(self.name(test), move || boot.wait().map_err(Failed::from))
    }

    fn is_debug(&self) -> bool {
        self.artifacts.environment.kernel.debug
    }

    /// One test for each case of this kind, and one for the boots of all of them.
    fn cases(&self, kind: Kind) -> anyhow::Result<Vec<Trial>> {
        let mut cases = all_cases(&self.artifacts)?;
        cases.retain(|name| Kind::of(name) == kind && self.is_chosen(name));
        if cases.is_empty() {
            return Ok(Vec::new());
        }
        let suites = self.suites(kind, &cases)?;
        let mut trials = Vec::new();
        // Neighbours in the list are of the same kind and take about as long: each suite has an even share of each kind.
        for (case, suite) in cases.into_iter().zip(suites.iter().cycle()) {
            let (suite, prefix) = (Arc::clone(suite), self.prefix);
            let timings = Arc::clone(&self.timings);
            trials.push(Trial::ignorable_test(self.name(&case), move || {
                verdict(&suite, prefix, &case, &timings)
            }));
        }
        trials.push(Trial::test(self.name(kind.boot()), move || {
            let problems: Vec<String> = (suites.iter())
                .filter_map(|suite| Some(with_folder(suite.end().err()?, suite.folder())))
                .collect();
            match problems.is_empty() {
                true => Ok(()),
                false => Err(problems.join("\n\n").into()),
            }
        }));
        Ok(trials)
    }

    /// The boots that share the cases: case 0 is for the first one, case 1 for the second, and so on.
    fn suites(&self, kind: Kind, cases: &[String]) -> anyhow::Result<Vec<Arc<Suite>>> {
        let load = load::from_environment()?;
        let weight = kind.weight(self.is_debug());
        let most = (cases.len() / CASES_PER_BOOT).max(1);
        let count = self.queue.at_once(weight).get().min(most);
        let suite = |index| {
            let name = format!("{}{}", kind.boot().trim_start_matches("boot/"), index + 1);
            let mut spec = self.spec(&name)?;
            let recording = Recording::wanted(&self.name(&name).replace('/', "-"));
            // Two nodes, so that memory policies have a choice.
            spec.append.push("numa=fake=2".to_owned());
            // Small enough to be filled.
            spec.devices.push(DeviceSpec {
                memory: "64M".parse()?,
                ..DeviceSpec::new(&spec.machine)
            });
            if let Some(recording) = &recording {
                recording.attach(&mut spec);
            }
            let plan = Plan {
                artifacts: self.artifacts.clone(),
                spec,
                rules: self.rules.clone(),
                cases: cases.iter().skip(index).step_by(count).cloned().collect(),
                load,
                limit: suite::LIMIT,
                recording,
            };
            Ok(Arc::new(Suite::queued(&self.queue, weight, plan)))
        };
        (0..count).map(suite).collect()
    }

    fn selftest(&self) -> anyhow::Result<Option<Trial>> {
        if !self.is_chosen(SELFTEST) {
            return Ok(None);
        }
        let (artifacts, spec) = (self.artifacts.clone(), self.spec("selftest")?);
        let rules = self.rules.clone();
        Ok(Some(self.trial(SELFTEST, Weight::Calm, move || {
            selftest::run(artifacts, spec, rules)
        })))
    }

    fn restart(&self) -> anyhow::Result<Vec<Trial>> {
        let kills = load::from_environment()?.kills;
        let weight = of_losses(self.is_debug());
        let chosen = restart::Part::ALL
            .into_iter()
            .filter(|part| self.is_chosen(part.name()) && !part.cases(kills).is_empty());
        chosen
            .map(|part| {
                let (artifacts, spec) = (self.artifacts.clone(), self.spec("restart")?);
                let rules = self.rules.clone();
                Ok(self.trial(part.name(), weight, move || {
                    restart::run(artifacts, spec, rules, part.cases(kills))
                }))
            })
            .collect()
    }

    fn bounce_buffers(&self) -> anyhow::Result<Option<Trial>> {
        if !self.is_chosen(bounce::NAME) {
            return Ok(None);
        }
        let (artifacts, spec) = (self.artifacts.clone(), self.spec("bounce")?);
        let rules = self.rules.clone();
        Ok(Some(self.trial(bounce::NAME, Weight::Calm, move || {
            bounce::run(artifacts, spec, rules)
        })))
    }

    fn wrong_devices(&self) -> Vec<Trial> {
        let wrong: Vec<_> = wrong_devices::all()
            .filter(|device| self.selection.contains_in_group(&self.name(device.name)))
            .collect();
        let (Some(first), chosen) = (wrong.first(), wrong.clone()) else {
            return Vec::new();
        };
        let (artifacts, accelerator) = (self.artifacts.clone(), self.accelerator);
        let rules = self.rules.clone();
        let boot = Arc::new(self.queued(first.name, Weight::Calm, move || {
            wrong_devices::boot(&artifacts, accelerator, &rules, &chosen)
        }));
        let trial = |device: WrongDevice| {
            let boot = Arc::clone(&boot);
            Trial::test(self.name(device.name), move || {
                let log = boot.wait().map_err(Failed::from)?;
                device.check(&log).map_err(Failed::from)
            })
        };
        wrong.into_iter().map(trial).collect()
    }

    /// Commands that share a boot.
    fn runs(&self) -> anyhow::Result<Vec<Trial>> {
        let chosen: Vec<RunTest> = run::all()
            .filter(|test| self.selection.contains_in_group(&self.name(test.name)))
            .collect();
        if chosen.is_empty() {
            return Ok(Vec::new());
        }
        let (artifacts, spec) = (self.artifacts.clone(), self.spec("run")?);
        let (rules, tests) = (self.rules.clone(), chosen.clone());
        let boot = Arc::new(self.queued("run", Weight::Calm, move || {
            run::boot(&artifacts, spec, &rules, &tests)
        }));
        let trial = |test: RunTest| {
            let (boot, timings) = (Arc::clone(&boot), Arc::clone(&self.timings));
            let name = self.name(test.name);
            Trial::ignorable_test(name.clone(), move || {
                let (result, duration) = (boot.wait()?.remove(test.name))
                    .ok_or_else(|| Failed::from("the test did not run"))?;
                timings.add(&Timing {
                    name,
                    seconds: duration.as_secs_f64(),
                    busy: None,
                });
                match result? {
                    run::Outcome::Passed => Ok(Completion::Completed),
                    run::Outcome::Skipped(why) => Ok(Completion::ignored_with(why)),
                }
            })
        };
        Ok(chosen.into_iter().map(trial).collect())
    }

    fn ends(&self) -> anyhow::Result<Vec<Trial>> {
        let debug = self.is_debug();
        let depth = load::from_environment()?.depth;
        let chosen = ends::all().filter(|end| self.is_chosen(end.name) && (end.on_debug || !debug));
        chosen
            .map(|end| {
                let (artifacts, spec) = (self.artifacts.clone(), self.spec("ends")?);
                let rules = self.rules.clone();
                Ok(self.trial(end.name, Weight::Calm, move || {
                    (end.run)(&end, &artifacts, &spec, &rules, depth)
                }))
            })
            .collect()
    }

    fn controls(&self) -> anyhow::Result<Vec<Trial>> {
        let chosen = controls::all().filter(|control| self.is_chosen(control.name));
        chosen
            .map(|control| {
                let (artifacts, spec) = (self.artifacts.clone(), self.spec("control")?);
                let rules = self.rules.clone();
                Ok(self.trial(control.name, Weight::Busy, move || {
                    (control.run)(&artifacts, spec, &rules)
                }))
            })
            .collect()
    }
}

fn verdict(
    suite: &Suite,
    prefix: &str,
    case: &str,
    timings: &Timings,
) -> Result<Completion, Failed> {
    let result = suite
        .result(case)
        .map_err(|problem| with_folder(problem, suite.folder()))?;
    if let Some(timing) = Timing::of_remarks(&format!("{prefix}{case}"), &result.remarks) {
        timings.add(&timing);
    }
    let what = match result.outcome {
        Outcome::Passed => return Ok(Completion::Completed),
        Outcome::Skipped(reason) => return Ok(Completion::ignored_with(reason)),
        Outcome::Failed => "failed",
        Outcome::TimedOut => "did not end in time",
    };
    let log = (suite.folder()).map_or_else(String::new, |folder| excerpt::of_case(&folder, case));
    let text = format!(
        "{what}\n{}\nthe kernel's log of this case:\n{log}\n\
         to repeat it: cargo xtask test --guest-only --filter {prefix}{case}",
        result.remarks.join("\n")
    );
    Err(with_folder(text, suite.folder()).into())
}

fn with_folder(text: String, folder: Option<PathBuf>) -> String {
    match folder {
        Some(folder) => format!("{text}\nlogs: {}", folder.display()),
        None => text,
    }
}
