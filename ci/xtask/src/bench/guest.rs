// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask bench guest`: the driver beside the kernel's own `test_hmm`, in the same guest and the same run.
//!
//! One guest is booted for each kernel command line, with two devices: one that copies, and one whose copies do nothing,
//! which shows what everything but the copy takes. `docs/benchmarks.md` says what the figures mean.

mod conversation;
mod figure;
mod jobs;
mod memcpy;
mod plan;
mod raw;
mod report;
mod samples;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use hmm_control::bench::{Request, TEST_HMM};
use hmm_report::html::Part;
use hmm_report::recording::Recording;
use hmm_tests::splat::Rules;
use hmm_vm::accel::AcceleratorChoice;
use hmm_vm::guest::{BootSpec, DeviceSpec, Guest, Interrupts};
use hmm_vm::initramfs::Tree;
use hmm_vm::machine::Machine;
use hmm_vm::{Artifacts, ByteSize, Progress};

use super::publish::Publish;
use crate::report::{DeviceTrace, Pages, fetch, own_reader};
use crate::setup_arguments::SetupArguments;
use crate::{build, signals};
use conversation::Conversation;
use figure::{Circumstances, Figure};
use jobs::JobSamples;
use plan::{Tuning, Wanted};
use report::Report;
use samples::Samples;

/// A huge page: sizes are multiples of it.
const HUGE: u64 = 2 << 20;
/// Memory of the guest for everything that is not measured, `test_hmm`'s copies of it included.
const GUEST_REST: u64 = 2 << 30;
/// Memory of the device beyond what is measured, so that nothing has to be evicted.
const DEVICE_REST: u64 = 512 << 20;
const CPUS: u32 = 2;
/// The machine's shape.
const MACHINE: &str = "q35";

/// Arguments of `bench guest`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    setup: SetupArguments,
    /// How the guest's processors run: `auto` takes kvm where ordinary guests really run, and tcg elsewhere.
    #[arg(
        long,
        value_name = "auto|kvm|tcg",
        default_value = "auto",
        env = "HMM_ACCEL"
    )]
    accel: AcceleratorChoice,
    #[command(flatten)]
    publish: Publish,
    /// Measurements of each figure. One more comes first and does not count.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// Memory that is moved, a multiple of 2M.
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = huge_pages)]
    size: u64,
    /// The largest of the sizes over which a MiB should cost the same, 16M to 4G.
    #[arg(long, value_name = "SIZE", default_value = "4G", value_parser = huge_pages)]
    largest: u64,
    /// Measure only with this kernel command line.
    #[arg(long, value_enum)]
    command_line: Option<Tuning>,
    /// Measure only figures whose name contains this. May be given several times.
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// Keep the folders with the logs of the boots, and say where they are.
    #[arg(long)]
    keep: bool,
}

fn huge_pages(text: &str) -> Result<u64, String> {
    let size: ByteSize = text.parse().map_err(|error| format!("{error}"))?;
    if size.bytes().is_multiple_of(HUGE) {
        Ok(size.bytes())
    } else {
        Err(format!("{text} is no multiple of 2M"))
    }
}

/// Measures and reports.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let progress = Progress::new();
    let artifacts = build::artifacts(&arguments.setup, &progress)?;
    let test_hmm = hmm_vm::test_hmm(&arguments.setup.options(), &progress)?;
    let interrupts = signals::forward()?;
    let mut report = Report::new();
    let mut pages = arguments.publish.pages()?;
    for tuning in Tuning::ALL {
        if arguments.command_line.is_none_or(|only| only == tuning) {
            report.add(of_guest(
                arguments,
                tuning,
                &artifacts,
                &test_hmm,
                &interrupts,
                pages.as_mut(),
                &progress,
            )?);
        }
    }
    let report = report.finish();
    ensure!(
        !report.is_empty(),
        "no figure has '{}' in its name",
        arguments.only.join("' or '")
    );
    let pages = pages.as_ref().map(|pages| ("bench guest", pages));
    (arguments.publish).report(&report, report.is_missed(), pages)
}

/// All figures of one guest.
fn of_guest(
    arguments: &Arguments,
    tuning: Tuning,
    artifacts: &Artifacts,
    test_hmm: &Path,
    interrupts: &Interrupts,
    pages: Option<&mut Pages>,
    progress: &Progress,
) -> anyhow::Result<Vec<Figure>> {
    let mut wanted = plan::figures(tuning, arguments.size, arguments.largest);
    let is_wanted = |name: &str| {
        arguments.only.is_empty()
            || (arguments.only.iter()).any(|text| name.contains(text.as_str()))
    };
    wanted.retain(|wanted| is_wanted(&wanted.name));
    let wants_jobs = jobs::NAMES.into_iter().any(is_wanted);
    // Memory for what will be measured, and not for what could be.
    let most = wanted
        .iter()
        .flat_map(|wanted| wanted.what.series())
        .map(|series| series.bytes)
        .chain(wants_jobs.then_some(jobs::BYTES))
        .max();
    let Some(most) = most else {
        return Ok(Vec::new());
    };
    let mut spec = spec(tuning, most, test_hmm)?;
    spec.accelerator = arguments.accel;
    spec.keep_folder = arguments.keep;
    spec.interrupts = interrupts.clone();
    let trace = match pages {
        Some(_) => Some(DeviceTrace::attach(&mut spec)?),
        None => None,
    };
    let step = progress.step("boot the guest", None);
    let mut guest = Guest::boot(artifacts, &spec)?;
    let circumstances = Circumstances {
        command_line: tuning.name(),
        kernel: guest.hello().kernel.clone(),
        accelerator: guest.accelerator().accelerator.to_string(),
    };
    step.finish(&format!(
        "Linux {}, {}, accelerator {}",
        circumstances.kernel,
        circumstances.command_line,
        guest.accelerator()
    ));
    let rounds = arguments.runs as usize;
    let measured = Conversation::with(&mut guest, |conversation| {
        let samples = Samples::take(&wanted, rounds, arguments.size, conversation, progress)?;
        let jobs = match wants_jobs {
            true => Some(JobSamples::take(rounds, conversation, progress)?),
            false => None,
        };
        Ok((samples, jobs))
    });
    let (samples, jobs) = match measured {
        Ok(samples) => samples,
        Err(error) => {
            guest.keep_folder();
            return Err(error.context(format!("logs: {}", guest.folder().display())));
        }
    };
    let recording = match trace {
        Some(_) => {
            let step = progress.step("once more, with a recording", None);
            let recording = recorded(&mut guest, &wanted, wants_jobs, arguments.size, progress);
            step.finish("done");
            Some(recording)
        }
        None => None,
    };
    let finished = guest.power_off()?;
    if let (Some(pages), Some(trace), Some(recording)) = (pages, trace, recording) {
        pages.add(recording.and_then(|recording| {
            Ok(Part {
                name: format!("command line: {}", tuning.name()),
                recording,
                trace: trace.read()?,
            })
        }));
    }
    let splats = Rules::read(&build::repository()?.join("ci"))?.scan(&finished.serial_log()?);
    if let Some(splat) = splats.first() {
        finished.keep_folder();
        anyhow::bail!(
            "the kernel complained, so that its times mean nothing; its log is in {}:\n{}",
            finished.folder().display(),
            splat.text
        );
    }
    if arguments.keep {
        eprintln!("logs: {}", finished.folder().display());
    }
    let mut figures = wanted
        .iter()
        .map(|wanted| {
            Figure::new(wanted, &samples, &circumstances)
                .with_context(|| format!("no measurements for '{}'", wanted.name))
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    if let Some(jobs) = jobs {
        figures.extend(jobs.figures(is_wanted, &circumstances)?);
    }
    Ok(figures)
}

/// Measures each once more. The times do not count: recording takes some, too.
fn recorded(
    guest: &mut Guest,
    wanted: &[Wanted],
    wants_jobs: bool,
    size: u64,
    progress: &Progress,
) -> anyhow::Result<Recording> {
    Conversation::with(guest, |conversation| {
        conversation.order(&Request::Record)?;
        Samples::take(wanted, 1, size, conversation, progress)?;
        if wants_jobs {
            JobSamples::take(1, conversation, progress)?;
        }
        Ok(())
    })?;
    fetch(guest, &own_reader(true))
}

/// A guest that can move `most` bytes.
fn spec(tuning: Tuning, most: u64, test_hmm: &Path) -> anyhow::Result<BootSpec> {
    let mut spec = BootSpec::new("bench", Machine::load(MACHINE)?);
    let mebibytes = |bytes: u64| -> anyhow::Result<ByteSize> {
        let count = u32::try_from(bytes >> 20).context("more memory than a machine has")?;
        Ok(ByteSize::mebibytes(count))
    };
    spec.cpus = CPUS;
    // test_hmm keeps a second copy in the guest's memory, and gives the contents to the caller a third time.
    let test_copies = 2 * most.min(1 << 30);
    spec.memory = mebibytes(most + test_copies + GUEST_REST)?;
    let copies = DeviceSpec {
        memory: mebibytes(most + most / 8 + DEVICE_REST)?,
        ..DeviceSpec::new(&spec.machine)
    };
    let mut no_copies = copies.clone();
    no_copies.args = ["--copy", "none", "--bench-lose-data"]
        .map(Into::into)
        .to_vec();
    spec.devices = vec![copies, no_copies];
    spec.append = tuning
        .append()
        .iter()
        .map(|&word| word.to_owned())
        .collect();
    let mut image = Tree::default();
    image
        .host_file(TEST_HMM, test_hmm)
        .context("test_hmm cannot be put into the guest's image")?;
    spec.image = image;
    Ok(spec)
}
