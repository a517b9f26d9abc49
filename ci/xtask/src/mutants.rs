// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask mutants`: the driver without one of its checks, once for each of `tests/mutants`, in a guest with the case that is
//! to notice.
//!
//! The same cases run with the driver as it is, too: a case that fails there notices nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use hmm_tests::ktap::Outcome;
use hmm_tests::mutants::{Mutant, MutantGuest};
use hmm_tests::splat::Rules;
use hmm_tests::suite::{self, Plan, Suite};
use hmm_vm::accel::AcceleratorChoice;
use hmm_vm::guest::{BootSpec, Interrupts, Load};
use hmm_vm::machine::Machine;
use hmm_vm::{Artifacts, KernelChoice, Progress, SetupError, SetupOptions};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use crate::setup_arguments::SetupArguments;
use crate::{build, signals};

/// How long the case of a mutant may take, which may hang for good.
const LIMIT: Duration = Duration::from_secs(600);

/// Arguments of `mutants`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    setup: SetupArguments,
    /// Only these mutants: names of files in tests/mutants, without the ending.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Names the mutants, with the check that each lacks and the case that notices, and runs none.
    #[arg(long)]
    list: bool,
    /// Writes all results to this file, as JUnit's XML.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// How the guest's processors run: `auto` takes kvm where ordinary guests really run, and tcg elsewhere.
    #[arg(
        long,
        value_name = "auto|kvm|tcg",
        default_value = "auto",
        env = "HMM_ACCEL"
    )]
    accel: AcceleratorChoice,
}

/// What came of a case with a driver.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// It failed, or the kernel's log or what was left over showed a fault: why.
    Noticed(String),
    /// All was as it should be.
    Nothing,
    /// The driver cannot be built so: what the compiler said.
    NotBuilt(String),
}

impl Verdict {
    fn is_noticed(&self) -> bool {
        matches!(self, Self::Noticed(_))
    }
}

/// What came of a mutant.
struct Judged<'a> {
    mutant: &'a Mutant,
    verdict: Verdict,
    took: Duration,
}

/// Runs the mutants.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let repository = build::repository()?;
    let all = Mutant::all(&repository)?;
    let mutants = match chosen(&all, arguments) {
        Ok(mutants) => mutants,
        Err(reason) => {
            eprintln!("error: {reason}");
            return Ok(ExitCode::from(crate::USAGE));
        }
    };
    if arguments.list {
        for mutant in mutants {
            println!(
                "{:24} {} ({})",
                mutant.name, mutant.check, mutant.noticed_by
            );
        }
        return Ok(ExitCode::SUCCESS);
    }
    let progress = Progress::new();
    let rules = Rules::read(&repository.join("ci"))?;
    let mut kernels = Vec::new();
    for kernel in [KernelChoice::Stock, KernelChoice::Debug] {
        let own: Vec<_> = (mutants.iter().copied())
            .filter(|mutant| kernel_of(mutant) == kernel)
            .collect();
        if !own.is_empty() {
            let options = arguments.setup.options_for(kernel);
            let artifacts = Artifacts::load(&build::test_artifacts(&options, &progress)?)?;
            kernels.push((own, options, artifacts));
        }
    }
    let interrupts = signals::forward()?;
    let mut judged = Vec::new();
    for (mutants, options, artifacts) in &kernels {
        let ground = Ground {
            options,
            artifacts,
            rules: &rules,
            accelerator: arguments.accel,
            interrupts: &interrupts,
            progress: &progress,
        };
        ground.expect_unchanged_driver_to_pass(mutants)?;
        for mutant in mutants {
            let started = Instant::now();
            let verdict = ground.judge(mutant)?;
            let one = Judged {
                mutant,
                verdict,
                took: started.elapsed(),
            };
            progress.line(&one.to_string());
            judged.push(one);
        }
    }
    println!("{}", Summary(&judged));
    if let Some(path) = &arguments.junit {
        write(path, &judged)?;
    }
    let all_noticed = judged.iter().all(|one| one.verdict.is_noticed());
    Ok(ExitCode::from(if all_noticed { 0 } else { crate::FAILURE }))
}

/// The mutants that the arguments ask for.
fn chosen<'a>(all: &'a [Mutant], arguments: &Arguments) -> Result<Vec<&'a Mutant>, String> {
    let unknown =
        (arguments.names.iter()).find(|name| !all.iter().any(|mutant| mutant.name == **name));
    if let Some(name) = unknown {
        return Err(format!("there is no mutant {name}; --list names all"));
    }
    Ok((all.iter())
        .filter(|mutant| arguments.names.is_empty() || arguments.names.contains(&mutant.name))
        .collect())
}

fn kernel_of(mutant: &Mutant) -> KernelChoice {
    match mutant.needs_debug_kernel {
        true => KernelChoice::Debug,
        false => KernelChoice::Stock,
    }
}

/// What the mutants of one kernel run with.
struct Ground<'a> {
    options: &'a SetupOptions,
    artifacts: &'a Artifacts,
    rules: &'a Rules,
    accelerator: AcceleratorChoice,
    interrupts: &'a Interrupts,
    progress: &'a Progress,
}

impl Ground<'_> {
    /// Runs the cases with the driver as it is.
    fn expect_unchanged_driver_to_pass(&self, mutants: &[&Mutant]) -> anyhow::Result<()> {
        let mut guests: BTreeMap<MutantGuest, BTreeSet<&str>> = BTreeMap::new();
        for mutant in mutants {
            guests
                .entry(mutant.guest)
                .or_default()
                .insert(&mutant.noticed_by);
        }
        for (guest, cases) in guests {
            let cases: Vec<&str> = cases.into_iter().collect();
            let step = (self.progress).step("run the cases with the driver as it is", None);
            let suite = self.boot(guest, self.artifacts.clone(), &cases, suite::LIMIT)?;
            suite
                .expect_all_passed(&cases)
                .context("a case that fails with the driver as it is notices nothing")?;
            step.finish("passed");
        }
        Ok(())
    }

    /// Builds a mutant and runs its case.
    fn judge(&self, mutant: &Mutant) -> anyhow::Result<Verdict> {
        let sources = build::target_folder()?.join("mutants");
        remove(&sources)?;
        hmm_vm::copy_driver(&sources)?;
        mutant.apply(&sources)?;
        let mut artifacts = self.artifacts.clone();
        artifacts.environment.module =
            match hmm_vm::driver_of(&sources, self.options, self.progress) {
                Ok(module) => module,
                Err(error @ SetupError::Driver { .. }) => {
                    return Ok(Verdict::NotBuilt(error.to_string()));
                }
                Err(error) => return Err(error.into()),
            };
        remove(&sources)?;
        let what = format!("run {} without: {}", mutant.noticed_by, mutant.check);
        let step = self.progress.step(&what, None);
        let case = mutant.noticed_by.as_str();
        let suite = self.boot(mutant.guest, artifacts, &[case], LIMIT)?;
        let verdict = verdict(&suite, case);
        step.finish("done");
        verdict.with_context(|| format!("the mutant {}", mutant.name))
    }

    fn boot(
        &self,
        guest: MutantGuest,
        artifacts: Artifacts,
        cases: &[&str],
        limit: Duration,
    ) -> anyhow::Result<Suite> {
        let mut spec = BootSpec::new("mutant", Machine::load("q35")?);
        spec.accelerator = self.accelerator;
        spec.interrupts = self.interrupts.clone();
        let (spec, rules) = guest.of(spec, self.rules.clone())?;
        Ok(Suite::start(Plan {
            artifacts,
            spec,
            rules,
            cases: cases.iter().map(|&case| case.to_owned()).collect(),
            load: Load::default(),
            limit,
            recording: None,
        }))
    }
}

/// Whether the case noticed something.
fn verdict(suite: &Suite, case: &str) -> anyhow::Result<Verdict> {
    let result = suite.result(case);
    let end = suite.end();
    match (result, end) {
        (Ok(result), end) => match result.outcome {
            Outcome::Failed => Ok(Verdict::Noticed(reason(&result.remarks))),
            Outcome::TimedOut => Ok(Verdict::Noticed("it did not end in time".to_owned())),
            Outcome::Skipped(why) => bail!("{case} was skipped: {why}"),
            Outcome::Passed => Ok(match end {
                Ok(()) => Verdict::Nothing,
                Err(problem) => Verdict::Noticed(first_line(&problem)),
            }),
        },
        (Err(missing), _) => match suite.death_in(case) {
            Some(_) => Ok(Verdict::Noticed(
                "the guest did not get through it".to_owned(),
            )),
            None => bail!("{missing}"),
        },
    }
}

/// What a case says of its failure; what it says of its time comes last.
fn reason(remarks: &[String]) -> String {
    let said = remarks
        .iter()
        .map(|line| line.trim_start_matches(['#', ' ']));
    let said: Vec<&str> = said.filter(|line| !line.is_empty()).collect();
    match said.as_slice() {
        [] => "it failed".to_owned(),
        [first, ..] => (*first).to_owned(),
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

fn remove(folder: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

impl fmt::Display for Judged<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mutant = self.mutant;
        match &self.verdict {
            Verdict::Noticed(why) => write!(
                formatter,
                "{}: noticed by {}: {why}",
                mutant.name, mutant.noticed_by
            ),
            Verdict::Nothing => write!(
                formatter,
                "{}: NOT NOTICED by {}, though the driver lacks this: {}",
                mutant.name, mutant.noticed_by, mutant.check
            ),
            Verdict::NotBuilt(error) => {
                write!(formatter, "{}: cannot be built: {error}", mutant.name)
            }
        }
    }
}

/// All results, one a line, and their number.
struct Summary<'a>(&'a [Judged<'a>]);

impl fmt::Display for Summary<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for one in self.0 {
            writeln!(formatter, "{one}")?;
        }
        let noticed = (self.0.iter())
            .filter(|one| one.verdict.is_noticed())
            .count();
        write!(formatter, "{noticed} of {} mutants noticed", self.0.len())
    }
}

/// Writes the report. The folder must exist.
fn write(path: &Path, judged: &[Judged<'_>]) -> anyhow::Result<()> {
    let mut suite = TestSuite::new("mutants");
    suite.add_test_cases(judged.iter().map(|one| {
        let status = match &one.verdict {
            Verdict::Noticed(_) => TestCaseStatus::success(),
            Verdict::Nothing | Verdict::NotBuilt(_) => {
                let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
                status.set_message(one.to_string());
                status
            }
        };
        let mut case = TestCase::new(&*one.mutant.name, status);
        case.set_classname("mutants").set_time(one.took);
        case
    }));
    let mut report = Report::new("virtio-hmm");
    report.add_test_suite(suite);
    let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    report
        .serialize(BufWriter::new(file))
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::reason;

    #[test]
    fn the_first_remark_is_the_reason() {
        let of = |remarks: &[&str]| {
            let remarks: Vec<_> = remarks.iter().map(|&line| line.to_owned()).collect();
            reason(&remarks)
        };
        assert_eq!(
            of(&["# page 3 has wrong bytes", "1.0 s, 40 % busy"]),
            "page 3 has wrong bytes"
        );
        assert_eq!(of(&["", "# a"]), "a");
        assert_eq!(of(&[]), "it failed");
    }
}
