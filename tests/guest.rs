// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The tests that boot guests. `cargo xtask test` makes what they need and runs them.
//!
//! Results of the guest's cases become results of tests, one to one, as they come. One more test for each boot says
//! whether it was sound as a whole.

use hmm_tests::ktap::Outcome;
use hmm_tests::selection::Selection;
use hmm_tests::splat::Rules;
use hmm_tests::suite::{Suite, all_cases};
use hmm_tests::{selftest, wrong_devices};
use hmm_vm::Artifacts;
use hmm_vm::accel::AcceleratorChoice;
use hmm_vm::guest::{BootSpec, DeviceSpec};
use hmm_vm::machine::Machine;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

/// `auto`, `kvm` or `tcg`.
const ACCELERATOR_VARIABLE: &str = "HMM_ACCEL";
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
    let mut trials = Vec::new();

    let cases: Vec<String> = all_cases(&artifacts)?
        .into_iter()
        .filter(|name| selection.contains(name))
        .collect();
    if !cases.is_empty() {
        let mut spec = BootSpec::new("cases", Machine::load("q35")?);
        spec.accelerator = accelerator;
        // Small enough to be filled.
        spec.devices.push(DeviceSpec {
            memory: "64M".parse()?,
            ..DeviceSpec::new(&spec.machine)
        });
        trials.extend(suite_trials(
            "boot/cases",
            &cases,
            artifacts.clone(),
            spec,
            rules()?,
        ));
    }

    if selection.contains(SELFTEST) {
        let mut spec = BootSpec::new("selftest", Machine::load("q35")?);
        spec.accelerator = accelerator;
        let (artifacts, rules) = (artifacts.clone(), rules()?);
        trials.push(Trial::test(SELFTEST, move || {
            selftest::run(artifacts, spec, rules).map_err(|error| format!("{error:#}").into())
        }));
    }

    let wrong: Vec<_> = wrong_devices::all()
        .filter(|device| selection.contains(device.name))
        .collect();
    if !wrong.is_empty() {
        let boot = Arc::new(OnceLock::new());
        let chosen = wrong.clone();
        let rules = rules()?;
        let start = Arc::new(move || wrong_devices::boot(&artifacts, accelerator, &rules, &chosen));
        for device in wrong {
            let (boot, start) = (Arc::clone(&boot), Arc::clone(&start));
            trials.push(Trial::test(device.name, move || {
                boot.get_or_init(|| start())
                    .as_ref()
                    .map_err(Failed::from)
                    .and_then(|log| device.check(log).map_err(Failed::from))
            }));
        }
    }
    Ok(trials)
}

/// One test for each case, and one for the boot.
fn suite_trials(
    boot: &'static str,
    cases: &[String],
    artifacts: Artifacts,
    spec: BootSpec,
    rules: Rules,
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
        Suite::start(artifacts.clone(), spec.clone(), rules, &names)
            .map_err(|error| error.to_string())
    });
    let mut trials = Vec::new();
    for name in cases {
        let (suite, start, case) = (Arc::clone(&suite), Arc::clone(&start), name.clone());
        trials.push(Trial::ignorable_test(name, move || {
            let suite = suite
                .get_or_init(|| start())
                .as_ref()
                .map_err(Failed::from)?;
            verdict(suite, &case)
        }));
    }
    trials.push(Trial::test(boot, move || {
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

fn verdict(suite: &Suite, case: &str) -> Result<Completion, Failed> {
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
        "{what}\n{}\nto repeat it: cargo xtask test --guest-only --filter {case}",
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
