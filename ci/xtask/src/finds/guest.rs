// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guests that the reproducers run in: of one kernel, without the project's driver, with the kernel's own `test_hmm`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hmm_tests::splat::Rules;
use hmm_vm::accel::AcceleratorChoice;
use hmm_vm::guest::{BootSpec, Command, CommandEnd, Guest, GuestError, GuestErrorKind, Interrupts};
use hmm_vm::initramfs::{Packer, Tree};
use hmm_vm::machine::Machine;
use hmm_vm::{Artifacts, KernelChoice, OwnModule, ProgramBuild, Progress, SetupOptions};

use super::list::{Find, Finds};
use super::verdict::{Run, Seen};
use crate::build;
use crate::delay::Delay;

/// The shape of the guests.
const MACHINE: &str = "q35";
/// Where the guest has the programs.
const PLACE: &str = "/finds";
/// Two nodes, since some finds move pages between them, and no unit tests, which have cases of their own.
const APPEND: [&str; 2] = ["numa=fake=2", "kunit.enable=0"];
/// How many times longer everything takes on a kernel that is built to find bugs.
const DEBUG_FACTOR: u64 = 5;

/// What the guests of one kernel are made of.
pub(super) struct Ground {
    kernel: KernelChoice,
    artifacts: Artifacts,
    test_hmm: PathBuf,
    image: Tree,
    accelerator: AcceleratorChoice,
    delays: Vec<Delay>,
    rules: Rules,
}

impl Ground {
    /// Makes the kernel that `options` name, the module and the programs.
    ///
    /// # Errors
    /// When one of them cannot be made.
    pub(super) fn prepare(
        folder: &Path,
        finds: &Finds,
        options: &SetupOptions,
        accelerator: AcceleratorChoice,
        delays: Vec<Delay>,
        progress: &Progress,
    ) -> anyhow::Result<Self> {
        let artifacts = build::artifacts_for(options, progress)?;
        let test_hmm = hmm_vm::own_module(OwnModule::TestHmm, options, progress)?;
        let programs = hmm_vm::kernel_programs(
            ProgramBuild {
                name: "finds",
                script: &finds.build_script(folder)?,
                packages: &[],
            },
            options,
            progress,
        )?;
        let mut packer = Packer::of_folder(&programs);
        packer.file_at(Path::new("/"), Path::new(PLACE))?;
        Ok(Self {
            kernel: options.kernel.clone(),
            artifacts,
            test_hmm,
            image: packer.finish()?,
            accelerator,
            delays,
            rules: Rules::read(&build::repository()?.join("ci"))?,
        })
    }

    /// Runs the reproducers of `finds`. Those that may leave a sick kernel behind have a guest each, all others share one as long as
    /// it lives.
    ///
    /// # Errors
    /// When a guest does not boot or is interrupted.
    pub(super) fn run(
        &self,
        finds: &[&Find],
        interrupts: &Interrupts,
        progress: &Progress,
    ) -> anyhow::Result<Run> {
        let mut run = Run {
            release: self.artifacts.environment.kernel.release.clone(),
            seen: vec![Seen::Broken("it did not run".to_owned()); finds.len()],
            problems: Vec::new(),
        };
        let step = progress.step(&format!("finds, {}", self.kernel), None);
        let (alone, together): (Vec<_>, Vec<_>) =
            (0..finds.len()).partition(|&index| finds[index].alone);
        let mut waiting: Vec<Vec<usize>> = alone.into_iter().map(|index| vec![index]).collect();
        waiting.push(together);
        while let Some(group) = waiting.pop() {
            if group.is_empty() {
                continue;
            }
            let mut guest = Guest::boot(&self.artifacts, &self.spec(interrupts)?)?;
            guest.keep_folder();
            let folder = guest.folder().to_owned();
            let mut is_lost = false;
            for (place, &index) in group.iter().enumerate() {
                let find = finds[index];
                step.detail(&find.name);
                match guest.output(&self.command(find)) {
                    Ok(output) => {
                        let text = String::from_utf8_lossy(&output.stdout).into_owned();
                        run.seen[index] = ended(&output.end, &text);
                    }
                    Err(error) => {
                        if matches!(error.kind(), GuestErrorKind::Interrupted) {
                            return Err(error.into());
                        }
                        run.seen[index] = lost(find, &error, &log(&folder), &folder);
                        is_lost = true;
                        // The others get another guest.
                        waiting.push(group[place + 1..].to_vec());
                        break;
                    }
                }
            }
            if !is_lost
                && let Err(error) = guest.power_off()
                && matches!(error.kind(), GuestErrorKind::Interrupted)
            {
                return Err(error.into());
            }
            let text = log(&folder);
            let problems: Vec<_> = (self.rules.scan(&text).into_iter())
                .map(|splat| format!("{}, line {}:\n{}", folder.display(), splat.line, splat.text))
                .collect();
            if problems.is_empty() && !is_lost {
                // A folder that stays is no failure.
                let _ = std::fs::remove_dir_all(&folder);
            }
            run.problems.extend(problems);
        }
        step.finish(&format!("{} programs", finds.len()));
        Ok(run)
    }

    fn spec(&self, interrupts: &Interrupts) -> anyhow::Result<BootSpec> {
        let mut spec = BootSpec::new("finds", Machine::load(MACHINE)?);
        spec.append = APPEND.map(str::to_owned).to_vec();
        spec.devices.clear();
        spec.load_driver = false;
        spec.modules = vec![self.test_hmm.clone()];
        spec.image = self.image.clone();
        spec.accelerator = self.accelerator;
        spec.interrupts = interrupts.clone();
        Ok(spec)
    }

    fn command(&self, find: &Find) -> Command {
        let mut command = Command::new([format!("{PLACE}/{}", find.name)]);
        let factor = match self.artifacts.environment.kernel.debug {
            true => DEBUG_FACTOR,
            false => 1,
        };
        command.limit = Some(Duration::from_secs(u64::from(find.seconds) * factor));
        Delay::wrap(&self.delays, true, &mut command);
        command
    }
}

/// What a program showed that has ended.
fn ended(end: &CommandEnd, text: &str) -> Seen {
    match end {
        CommandEnd::Ended(_) => Seen::of(end.shell_code(), text),
        CommandEnd::NotStarted { message, .. } => Seen::Broken(message.clone()),
    }
}

/// What a program showed that did not end, or whose guest died: the fault, if the log has what the find says.
fn lost(find: &Find, error: &GuestError, log: &str, folder: &Path) -> Seen {
    let line = (find.splat.as_ref())
        .and_then(|splat| log.lines().find(|line| line.contains(splat.as_str())));
    match line {
        Some(line) => {
            // Behind the time.
            let text = line.split_once("] ").map_or(line, |(_, text)| text);
            Seen::Fault(format!("the kernel died: {}", text.trim()))
        }
        None => Seen::Broken(format!("{error}; logs: {}", folder.display())),
    }
}

fn log(folder: &Path) -> String {
    // Without a log there is no sign of the fault, which is what the caller then says.
    let bytes = std::fs::read(folder.join("serial.log")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}
