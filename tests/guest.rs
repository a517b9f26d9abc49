// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The tests that boot guests. `cargo xtask test` makes what they need and runs them.
//!
//! Results of the guest's cases become results of tests, one to one, as they come. One more test for each boot says
//! whether it was sound as a whole.

use hmm_tests::ktap::Outcome;
use hmm_tests::selection::Selection;
use hmm_tests::splat::Rules;
use hmm_tests::suite::{Suite, all_cases};
use hmm_tests::wrong_devices::{self, WrongDevice};
use hmm_tests::{controls, ends, load, selftest};
use hmm_vm::Artifacts;
use hmm_vm::accel::AcceleratorChoice;
use hmm_vm::guest::{BootSpec, DeviceSpec, Load};
use hmm_vm::machine::Machine;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

/// `auto`, `kvm` or `tcg`.
const ACCELERATOR_VARIABLE: &str = "HMM_ACCEL";
/// The test of the boot with all cases.
const BOOT: &str = "boot/cases";
/// The test that the others notice what they are there for.
const SELFTEST: &str = "boot/selftest";
/// The environment or the usage is wrong.
const CANNOT_RUN: u8 = 3;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    let selection = Selection::take_from(&mut arguments);
    // Results come from one guest in one order.
    arguments.test_threads = Some(1);
    match trials(&selection) {
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
    let rules = || Rules::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../ci"));
    // A list that makes no sense is an error now and not after a long run.
    rules()?;
    let boots = Boots {
        prefix: prefix(&artifacts),
        artifacts,
        accelerator,
        selection,
    };
    let mut trials = boots.cases(rules()?)?;
    trials.extend(boots.selftest(rules()?)?);
    trials.extend(boots.wrong_devices(rules()?)?);
    trials.extend(boots.ends(&rules()?)?);
    if boots.artifacts.controls.is_some() {
        trials.extend(boots.controls(rules()?)?);
    }
    Ok(trials)
}

/// What the names of tests begin with, so that the same test on two kernels has two names.
fn prefix(artifacts: &Artifacts) -> &'static str {
    match artifacts.environment.kernel.debug {
        true => "debug/",
        false => "",
    }
}

/// The boots of one kernel, as far as they are chosen.
struct Boots<'a> {
    prefix: &'static str,
    artifacts: Artifacts,
    accelerator: AcceleratorChoice,
    selection: &'a Selection,
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

    fn cases(&self, rules: Rules) -> anyhow::Result<Vec<Trial>> {
        let mut cases = all_cases(&self.artifacts)?;
        cases.retain(|name| self.is_chosen(name));
        if cases.is_empty() {
            return Ok(Vec::new());
        }
        let mut spec = self.spec("cases")?;
        // Small enough to be filled.
        spec.devices.push(DeviceSpec {
            memory: "64M".parse()?,
            ..DeviceSpec::new(&spec.machine)
        });
        let artifacts = self.artifacts.clone();
        Ok(suite_trials(
            self.prefix,
            &cases,
            artifacts,
            spec,
            rules,
            load::from_environment()?,
        ))
    }

    fn selftest(&self, rules: Rules) -> anyhow::Result<Option<Trial>> {
        if !self.is_chosen(SELFTEST) {
            return Ok(None);
        }
        let (artifacts, spec) = (self.artifacts.clone(), self.spec("selftest")?);
        Ok(Some(Trial::test(self.name(SELFTEST), move || {
            selftest::run(artifacts, spec, rules).map_err(|error| format!("{error:#}").into())
        })))
    }

    fn wrong_devices(&self, rules: Rules) -> anyhow::Result<Vec<Trial>> {
        let wrong: Vec<_> = wrong_devices::all()
            .filter(|device| self.is_chosen(device.name))
            .collect();
        let boot = Arc::new(OnceLock::new());
        let (artifacts, accelerator, chosen) =
            (self.artifacts.clone(), self.accelerator, wrong.clone());
        let start = Arc::new(move || wrong_devices::boot(&artifacts, accelerator, &rules, &chosen));
        let trial = |device: WrongDevice| {
            let (boot, start) = (Arc::clone(&boot), Arc::clone(&start));
            Trial::test(self.name(device.name), move || {
                boot.get_or_init(|| start())
                    .as_ref()
                    .map_err(Failed::from)
                    .and_then(|log| device.check(log).map_err(Failed::from))
            })
        };
        Ok(wrong.into_iter().map(trial).collect())
    }

    fn ends(&self, rules: &Rules) -> anyhow::Result<Vec<Trial>> {
        let mut trials = Vec::new();
        let debug = self.artifacts.environment.kernel.debug;
        for end in ends::all().filter(|end| self.is_chosen(end.name) && (end.on_debug || !debug)) {
            let (artifacts, spec) = (self.artifacts.clone(), self.spec("ends")?);
            let rules = rules.clone();
            trials.push(Trial::test(self.name(end.name), move || {
                (end.run)(&end, &artifacts, &spec, &rules)
                    .map_err(|error| format!("{error:#}").into())
            }));
        }
        Ok(trials)
    }

    fn controls(&self, rules: Rules) -> anyhow::Result<Vec<Trial>> {
        let rules = Arc::new(rules);
        let mut trials = Vec::new();
        for control in controls::all().filter(|control| self.is_chosen(control.name)) {
            let (artifacts, spec) = (self.artifacts.clone(), self.spec("control")?);
            let rules = Arc::clone(&rules);
            trials.push(Trial::test(self.name(control.name), move || {
                (control.run)(&artifacts, spec, &rules).map_err(|error| format!("{error:#}").into())
            }));
        }
        Ok(trials)
    }
}

/// One test for each case, and one for the boot.
fn suite_trials(
    prefix: &'static str,
    cases: &[String],
    artifacts: Artifacts,
    spec: BootSpec,
    rules: Rules,
    load: Load,
) -> Vec<Trial> {
    let suite: Arc<OnceLock<Result<Suite, String>>> = Arc::default();
    let names = cases.to_vec();
    let rules = std::sync::Mutex::new(Some(rules));
    // The guest boots when the first test wants a result, and not for a list of the tests.
    let start = Arc::new(move || {
        let rules = rules
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take()
            .ok_or("the suite was started twice")?;
        Suite::start(artifacts.clone(), spec.clone(), rules, &names, load)
            .map_err(|error| error.to_string())
    });
    let mut trials = Vec::new();
    for name in cases {
        let (suite, start, case) = (Arc::clone(&suite), Arc::clone(&start), name.clone());
        trials.push(Trial::ignorable_test(
            format!("{prefix}{name}"),
            move || {
                let suite = suite
                    .get_or_init(|| start())
                    .as_ref()
                    .map_err(Failed::from)?;
                verdict(suite, prefix, &case)
            },
        ));
    }
    trials.push(Trial::test(format!("{prefix}{BOOT}"), move || {
        let suite = suite
            .get_or_init(|| start())
            .as_ref()
            .map_err(Failed::from)?;
        suite
            .end()
            .map_err(|problem| Failed::from(with_folder(problem, suite.folder())))
    }));
    trials
}

fn verdict(suite: &Suite, prefix: &str, case: &str) -> Result<Completion, Failed> {
    let result = suite
        .result(case)
        .map_err(|problem| with_folder(problem, suite.folder()))?;
    let what = match result.outcome {
        Outcome::Passed => return Ok(Completion::Completed),
        Outcome::Skipped(reason) => return Ok(Completion::ignored_with(reason)),
        Outcome::Failed => "failed",
        Outcome::TimedOut => "did not end in time",
    };
    let text = format!(
        "{what}\n{}\nto repeat it: cargo xtask test --guest-only --filter {prefix}{case}",
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
