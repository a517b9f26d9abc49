// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask suite NAME`: a test suite by others, unmodified, in the same kind of guest once for each of its sides.
//!
//! A suite is a folder of `ci/suites`: [`declaration`] has what it is and how it runs, [`expected`] what its cases give.
//! [`side`] boots a guest and runs it, [`each`] case by case if it is to, [`moved`] with its memory on the move, [`tap`] reads what it prints, [`judgement`] compares, [`report`] tells.

mod declaration;
mod each;
mod expected;
mod judgement;
mod moved;
mod report;
mod side;
mod tap;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use hmm_tests::splat::Rules;
use hmm_vm::accel::AcceleratorChoice;
use hmm_vm::guest::Depth;
use hmm_vm::initramfs::{Packer, Tree};
use hmm_vm::{Artifacts, KernelChoice, ProgramBuild, Progress, SetupOptions};

use crate::report::Pages;
use crate::setup_arguments::SetupArguments;
use crate::{build, hermetic, signals};
use declaration::Suite;
use expected::KernelName;
use judgement::Judgement;
use side::{Ground, SideRun};

/// Arguments of `suite`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    setup: SetupArguments,
    /// The suite: a folder of ci/suites.
    #[arg(value_name = "NAME")]
    name: String,
    /// Only cases whose names contain this.
    #[arg(long, value_name = "PATTERN")]
    filter: Option<String>,
    /// `short` runs the cases that every change can afford, `long` all. With --filter, all that have the text.
    #[arg(
        long,
        value_name = "short|long",
        default_value = "long",
        value_parser = clap::value_parser!(Depth)
    )]
    depth: Depth,
    /// Only this side of the suite.
    #[arg(long, value_name = "SIDE")]
    side: Option<String>,
    /// Writes all results to this file, as JUnit's XML.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Writes all results to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Record what driver and device do on each side that has a device, and write results and pictures of it: one HTML file.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// How the guest's processors run: `auto` takes kvm where ordinary guests really run, and tcg elsewhere.
    #[arg(
        long,
        value_name = "auto|kvm|tcg",
        default_value = "auto",
        env = "HMM_ACCEL"
    )]
    accel: AcceleratorChoice,
    /// Keep the folders with the logs of the boots, and say where they are.
    #[arg(long)]
    keep: bool,
}

/// Where the guest has what the suite's build made.
const PLACE: &str = "/suite";

/// Runs the suite on each kernel, and judges it.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let repository = build::repository()?;
    let suite = match Suite::read(&repository.join("ci/suites"), &arguments.name) {
        Ok(suite) => suite,
        Err(error) => {
            eprintln!("error: {error}");
            return Ok(ExitCode::from(crate::USAGE));
        }
    };
    let mut cases = suite.expected.cases_with(arguments.filter.as_deref());
    let are_quick = arguments.filter.is_none() && arguments.depth == Depth::Short;
    if are_quick {
        cases = suite.declaration.run.quick(&cases);
    }
    if cases.is_empty() {
        eprintln!(
            "error: no case of {} has '{}' in its name",
            suite.name,
            arguments.filter.as_deref().unwrap_or_default()
        );
        return Ok(ExitCode::from(crate::USAGE));
    }
    let sides: Vec<_> = (suite.declaration.sides.iter())
        .filter(|side| {
            arguments
                .side
                .as_ref()
                .is_none_or(|name| *name == side.name)
        })
        .collect();
    if sides.is_empty() {
        let names: Vec<_> = (suite.declaration.sides.iter())
            .map(|side| side.name.as_str())
            .collect();
        eprintln!("error: {} has the sides {}", suite.name, names.join(", "));
        return Ok(ExitCode::from(crate::USAGE));
    }
    let rules = Rules::read(&repository.join("ci"))?;
    let progress = Progress::new();
    progress.line(&format!("{}: {}", suite.name, suite.declaration.summary));
    // A Ctrl-C ends the set-up at once. From the first boot on, the guests are told of it.
    let mut ready = Vec::new();
    for kernel in arguments.setup.kernels() {
        ready.push(prepare(
            &suite,
            kernel.clone(),
            &arguments.setup.options_for(kernel),
            &progress,
        )?);
    }
    let interrupts = signals::forward()?;
    let mut pages = Pages::begin(arguments.report.as_deref())?;
    let mut judgements = Vec::new();
    for ready in &ready {
        let mut runs: Vec<SideRun> = Vec::new();
        for side in &sides {
            let ground = Ground {
                suite: &suite,
                artifacts: &ready.artifacts,
                modules: &ready.modules_of(side),
                image: &ready.image,
                options: side::Options {
                    records: pages.is_some(),
                    accelerator: arguments.accel,
                    interrupts: interrupts.clone(),
                },
                selects: arguments.filter.is_some()
                    || (are_quick && !suite.declaration.run.quick.is_empty()),
                cases: &cases,
                outputs: &build::target_folder()?.join("suites").join(&suite.name),
                kernel: &ready.kernel,
            };
            runs.push(side::run(side, &ground, &rules, &progress)?);
        }
        let judgement = Judgement::new(&suite, &ready.kernel, &cases, &runs);
        if let Some(pages) = &mut pages {
            for part in runs.iter_mut().filter_map(|run| run.recording.take()) {
                pages.add(part);
            }
        }
        println!("{}", report::Table(&judgement));
        for (run, side) in runs.iter().zip(&judgement.sides) {
            if arguments.keep {
                eprintln!("logs of {}: {}", run.side, run.folder.display());
            } else if side.is_good() {
                // A folder that stays is no failure.
                let _ = std::fs::remove_dir_all(&run.folder);
            }
        }
        judgements.push(judgement);
    }
    if let Some(path) = &arguments.junit {
        report::junit(path, &suite.name, &judgements)?;
    }
    if let Some(path) = &arguments.json {
        report::json(path, &suite.name, &judgements)?;
    }
    if let Some(pages) = &pages {
        let title = format!("suite {}", suite.name);
        pages.write(&title, &report::results(&judgements, pages.parts()))?;
    }
    let is_good = judgements.iter().all(Judgement::is_good);
    Ok(ExitCode::from(if is_good { 0 } else { crate::FAILURE }))
}

/// What the guests of one kernel are made of.
struct Ready {
    kernel: KernelName,
    artifacts: Artifacts,
    image: Tree,
    /// The suite's modules, each with its file.
    modules: Vec<(declaration::Module, PathBuf)>,
}

impl Ready {
    fn modules_of(&self, side: &declaration::Side) -> Vec<PathBuf> {
        (side.modules.iter())
            .filter_map(|wanted| self.modules.iter().find(|(module, _)| module == wanted))
            .map(|(_, file)| file.clone())
            .collect()
    }
}

fn prepare(
    suite: &Suite,
    kernel: KernelChoice,
    options: &SetupOptions,
    progress: &Progress,
) -> anyhow::Result<Ready> {
    let artifacts = build::artifacts_for(options, progress)?;
    let mut modules = Vec::new();
    for module in (suite.declaration.sides.iter()).flat_map(|side| &side.modules) {
        if !modules.iter().any(|(known, _)| known == module) {
            let file = hmm_vm::own_module(module.own(), options, progress)?;
            modules.push((*module, file));
        }
    }
    let build = &suite.declaration.build;
    let programs = match build.script.is_empty() {
        true => None,
        false => Some(hmm_vm::kernel_programs(
            ProgramBuild {
                name: &suite.name,
                script: &build.script,
                packages: &build.packages,
            },
            options,
            progress,
        )?),
    };
    let root = match build.packages.is_empty() {
        true => hmm_vm::build_root(options, progress)?,
        false => hmm_vm::packages(&suite.name, &build.packages, options, progress)?,
    };
    let release = artifacts.environment.kernel.release.clone();
    Ok(Ready {
        kernel: KernelName::of(&kernel),
        artifacts,
        image: image(suite, programs.as_deref(), &root, &release)?,
        modules,
    })
}

/// What the guest has beside its own programs.
fn image(
    suite: &Suite,
    programs: Option<&Path>,
    root: &Path,
    release: &str,
) -> anyhow::Result<Tree> {
    let mut packer = Packer::of_folder(root);
    let own: &[&str] = match suite.declaration.run.verdict {
        declaration::Verdict::Tap => &[],
        declaration::Verdict::Exit => &each::PROGRAMS,
    };
    for program in
        (suite.declaration.guest.programs.iter().map(String::as_str)).chain(own.iter().copied())
    {
        packer.program(program.as_ref(), Path::new("/"))?;
    }
    for file in &suite.declaration.guest.files {
        packer.file(Path::new(&file.replace("{release}", release)))?;
    }
    let mut image = packer.finish()?;
    match programs {
        Some(programs) => {
            let mut packer = Packer::of_folder(programs);
            packer.file_at(Path::new("/"), Path::new(PLACE))?;
            image
                .extend(&packer.finish()?)
                .context("the suite's programs and those of its guest are in each other's place")?;
        }
        None => {
            image.folder(PLACE)?;
        }
    }
    hermetic::furnish(&mut image)?;
    Ok(image)
}
