// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One side of a suite: a guest of its kind, in which the suite runs once.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use hmm_report::html::Part;
use hmm_tests::splat::Rules;
use hmm_vm::accel::AcceleratorChoice;
use hmm_vm::guest::{
    BootSpec, Collected, Command, CommandEnd, DeviceSpec, Guest, GuestErrorKind, Input, Interrupts,
    Streams,
};
use hmm_vm::initramfs::Tree;
use hmm_vm::machine::Machine;
use hmm_vm::{Artifacts, Progress, Step};

use crate::report::{DeviceTrace, fetch, own_reader, recorder};

use super::PLACE;
use super::declaration::{Side, Suite, Verdict};
use super::each;
use super::expected::KernelName;
use super::moved::{self, Moved};
use super::tap::Output;

/// The shape of the guests.
const MACHINE: &str = "q35";

/// What a side runs on.
pub(super) struct Ground<'a> {
    pub(super) suite: &'a Suite,
    pub(super) artifacts: &'a Artifacts,
    /// Modules that the guest loads.
    pub(super) modules: &'a [PathBuf],
    pub(super) image: &'a Tree,
    pub(super) options: Options,
    /// The cases that are to run.
    pub(super) cases: &'a [&'a str],
    /// Whether the suite has others that are not to run.
    pub(super) selects: bool,
    /// The folder for what the suite prints.
    pub(super) outputs: &'a Path,
    pub(super) kernel: &'a KernelName,
}

/// What the caller of the command may choose of a guest.
pub(super) struct Options {
    /// Whether driver and device are recorded.
    pub(super) records: bool,
    pub(super) accelerator: AcceleratorChoice,
    pub(super) interrupts: Interrupts,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct SideRun {
    /// The side's name.
    pub(super) side: String,
    /// What `uname -r` says in its guest.
    pub(super) release: String,
    pub(super) output: Output,
    /// What was moved meanwhile, on a side that moves memory.
    pub(super) moved: Option<Moved>,
    /// What was recorded meanwhile, if that was asked for and the side has a device.
    pub(super) recording: Option<anyhow::Result<Part>>,
    /// What is wrong with the run as a whole.
    pub(super) problems: Vec<String>,
    /// The file with everything that was printed.
    pub(super) log: PathBuf,
    /// The folder with the boot's logs, which stays.
    pub(super) folder: PathBuf,
}

/// Boots a guest, runs the suite in it, powers it off and looks at the kernel's log.
///
/// # Errors
/// When the guest does not boot, is interrupted, or the output cannot be kept. All else is a problem of the run.
pub(super) fn run(
    side: &Side,
    ground: &Ground<'_>,
    rules: &Rules,
    progress: &Progress,
) -> anyhow::Result<SideRun> {
    let run = &ground.suite.declaration.run;
    let what = format!(
        "{}, {} kernel, {}",
        ground.suite.name, ground.kernel, side.name
    );
    let step = Arc::new(progress.step(&what, None));
    let mut spec = spec(side, ground)?;
    let trace = match ground.options.records && side.devices > 0 {
        true => Some(DeviceTrace::attach(&mut spec)?),
        false => None,
    };
    let mut guest = Guest::boot(ground.artifacts, &spec)?;
    let release = guest.hello().kernel.clone();
    let recorder = trace.as_ref().map_or_else(Vec::new, |_| recorder());
    let mut command = Command::new(recorder.into_iter().chain(argv(side, ground)));
    command.cwd = PLACE.into();
    command.limit = Some(run.limit(ground.artifacts.environment.kernel.debug));

    let printed = Collected::default();
    let errors = Collected::default();
    let started = Instant::now();
    let end = guest.exec(
        &command,
        Streams {
            stdin: Input::Empty,
            stdout: Box::new(Watched::new(printed.clone(), Arc::clone(&step))),
            stderr: Box::new(errors.clone()),
        },
    );
    let seconds = started.elapsed().as_secs_f64();
    let mut problems = Vec::new();
    let folder = guest.folder().to_owned();
    guest.keep_folder();
    let moved = match (&side.mover, &end) {
        (Some(_), Ok(CommandEnd::Ended(_))) => match moved(&mut guest) {
            Ok(moved) => {
                problems.extend(moved.problem(ground.selects));
                Some(moved)
            }
            Err(error) => {
                problems.push(format!("{error:#}"));
                None
            }
        },
        _ => None,
    };
    let recording = match (&trace, &end) {
        (Some(_), Ok(CommandEnd::Ended(_))) => Some(fetch(&mut guest, &own_reader(false))),
        _ => None,
    };
    let finished = match &end {
        Ok(CommandEnd::NotStarted { message, .. }) => {
            problems.push(format!("the guest cannot start the suite: {message}"));
            guest.power_off()
        }
        Ok(CommandEnd::Ended(_)) => guest.power_off(),
        Err(_) => Err(GuestErrorKind::Infrastructure("the suite did not end".to_owned()).into()),
    };
    if let Some(error) = end.err().or(finished.err()) {
        if matches!(error.kind(), GuestErrorKind::Interrupted) {
            return Err(error.into());
        }
        problems.push(error.to_string());
    }
    let text = printed.text() + &errors.text();
    fs::create_dir_all(ground.outputs)
        .with_context(|| format!("cannot make {}", ground.outputs.display()))?;
    let log = (ground.outputs).join(format!("{}-{}.log", ground.kernel, side.name));
    fs::write(&log, &text).with_context(|| format!("cannot write {}", log.display()))?;
    let output = match run.verdict {
        Verdict::Tap | Verdict::Exit => Output::read(&text),
    };
    problems.extend(output.problem());
    problems.extend(splats(side, ground, rules, &folder));
    if let Some(step) = Arc::into_inner(step) {
        step.finish(&format!(
            "{} results in {seconds:.0} s",
            output.results.len()
        ));
    }
    Ok(SideRun {
        side: side.name.clone(),
        release,
        output,
        moved,
        recording: (trace.zip(recording)).map(|(trace, recording)| {
            Ok(Part {
                name: what,
                recording: recording?,
                trace: trace.read()?,
            })
        }),
        problems,
        log,
        folder,
    })
}

/// The suite as a command of the guest.
fn argv(side: &Side, ground: &Ground<'_>) -> Vec<String> {
    let run = &ground.suite.declaration.run;
    let mut argv = match &side.mover {
        Some(mover) => moved::argv(mover),
        None => Vec::new(),
    };
    argv.extend(["sh", "-euc"].map(str::to_owned));
    match run.verdict {
        Verdict::Tap => {
            argv.extend([run.script.clone(), ground.suite.name.clone()]);
            if ground.selects {
                argv.extend(run.selection(ground.cases));
            }
        }
        Verdict::Exit => {
            let limit = run.case_limit(ground.artifacts.environment.kernel.debug);
            argv.extend(each::arguments(
                run,
                &ground.suite.name,
                limit,
                ground.cases,
            ));
        }
    }
    argv
}

/// Fetches what hmmctl counted.
fn moved(guest: &mut Guest) -> anyhow::Result<Moved> {
    let argv = ["sh", "-euc", moved::READ].map(str::to_owned).to_vec();
    let output = guest.output(&Command::new(argv))?;
    Moved::read(&output.stdout).with_context(|| {
        format!(
            "the summary of hmmctl is not what was expected: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    })
}

/// The guest of a side.
fn spec(side: &Side, ground: &Ground<'_>) -> anyhow::Result<BootSpec> {
    let common = &ground.suite.declaration.guest;
    let mut spec = BootSpec::new("suite", Machine::load(MACHINE)?);
    spec.memory = common.memory.unwrap_or(spec.memory);
    spec.cpus = common.cpus.unwrap_or(spec.cpus);
    spec.append.clone_from(&common.append);
    let device = DeviceSpec {
        memory: side.device_memory.unwrap_or(spec.machine.device.memory),
        ..DeviceSpec::new(&spec.machine)
    };
    spec.devices = (0..side.devices).map(|_| device.clone()).collect();
    spec.load_driver = side.devices > 0;
    spec.driver_parameters.clone_from(&side.driver_parameters);
    spec.modules = ground.modules.to_vec();
    spec.image = ground.image.clone();
    spec.accelerator = ground.options.accelerator;
    spec.interrupts = ground.options.interrupts.clone();
    Ok(spec)
}

/// What the kernel's log must not have and has.
fn splats(side: &Side, ground: &Ground<'_>, rules: &Rules, folder: &Path) -> Vec<String> {
    let path = folder.join("serial.log");
    let log = match fs::read(&path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => return vec![format!("cannot read {}: {error}", path.display())],
    };
    if !log.contains("Linux version") {
        return vec!["the kernel's log is empty".to_owned()];
    }
    let expected = &ground.suite.expected;
    (rules.scan(&log).into_iter())
        .filter(|splat| {
            let line = splat.text.lines().next().unwrap_or_default();
            !expected.allows(line, ground.kernel, &side.name)
        })
        .map(|splat| format!("kernel log, line {}:\n{}", splat.line, splat.text))
        .collect()
}

/// Keeps what is printed, and shows each line as it comes.
struct Watched {
    kept: Collected,
    step: Arc<Step>,
    partial: Vec<u8>,
}

impl Watched {
    fn new(kept: Collected, step: Arc<Step>) -> Self {
        Self {
            kept,
            step,
            partial: Vec::new(),
        }
    }
}

impl Write for Watched {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.kept.write_all(bytes)?;
        self.partial.extend_from_slice(bytes);
        while let Some(end) = self.partial.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.partial.drain(..=end).collect();
            self.step.detail(String::from_utf8_lossy(&line).trim_end());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
