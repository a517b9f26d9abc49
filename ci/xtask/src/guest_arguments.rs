// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The options that every command shares which boots a guest.

use std::ffi::OsString;
use std::time::Duration;

use hmm_vm::ByteSize;
use hmm_vm::accel::AcceleratorChoice;
use hmm_vm::guest::{BootSpec, DeviceSpec, Interrupts};
use hmm_vm::machine::Machine;
use hmm_vm::supervisor::{OnLoss, Restarts};

use crate::setup_arguments::SetupArguments;

/// Options of the guest.
#[derive(clap::Args)]
pub(crate) struct GuestArguments {
    #[command(flatten)]
    pub(crate) setup: SetupArguments,
    /// How many processors the guest has.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    cpus: Option<u32>,
    /// How much memory the guest has.
    #[arg(long, value_name = "SIZE")]
    memory: Option<ByteSize>,
    /// How much private memory the device has.
    #[arg(long, value_name = "SIZE")]
    device_memory: Option<ByteSize>,
    /// How the guest's processors run: `auto` takes kvm where ordinary guests really run, and tcg elsewhere.
    #[arg(
        long,
        value_name = "auto|kvm|tcg",
        default_value = "auto",
        env = "HMM_ACCEL"
    )]
    pub(crate) accel: AcceleratorChoice,
    /// The shape of the machine: one of qemu-config/machines, or a file like those.
    #[arg(long, value_name = "NAME|FILE", default_value = "q35")]
    machine: String,
    /// Words to add to the guest's kernel command line. Without KVM, programs crash with `init_on_alloc=0` (docs/benchmarks.md).
    #[arg(long, value_name = "KERNEL-ARGS", allow_hyphen_values = true)]
    append: Vec<String>,
    /// Words to add to the command line of the device's process; it runs in a folder of its own, so paths are absolute.
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    device_arg: Vec<OsString>,
    #[command(flatten)]
    restart: RestartArguments,
    /// Keep the folder with the logs of the boot, and say where it is.
    #[arg(long)]
    pub(crate) keep: bool,
    /// Give up when the guest's command takes longer than this many seconds.
    #[arg(long, value_name = "S", value_parser = seconds)]
    pub(crate) timeout: Option<Duration>,
}

/// Options of what happens when the device's process dies or hangs.
#[derive(clap::Args)]
#[command(next_help_heading = "When the device's process dies or hangs")]
struct RestartArguments {
    /// Take the device out of the guest, start its process again on the same memory, and plug it in. Else the run ends.
    #[arg(long)]
    restart_device: bool,
    /// Give the device up after so many starts in a row.
    #[arg(long, value_name = "N", requires = "restart_device")]
    restart_attempts: Option<u32>,
    /// Milliseconds before the second start in a row; each further one waits twice as long, up to 30 s.
    #[arg(long, value_name = "MS", requires = "restart_device")]
    restart_back_off: Option<u64>,
    /// Seconds without an answer after which the process counts as hanging, and is killed; 0: never.
    #[arg(long, value_name = "S", requires = "restart_device")]
    hang_limit: Option<u32>,
}

impl RestartArguments {
    fn on_loss(&self) -> OnLoss {
        if !self.restart_device {
            return OnLoss::EndRun;
        }
        let usual = Restarts::default();
        OnLoss::Restart(Restarts {
            attempts: self.restart_attempts.unwrap_or(usual.attempts),
            back_off: self
                .restart_back_off
                .map_or(usual.back_off, Duration::from_millis),
            hang: match self.hang_limit {
                None => usual.hang,
                Some(0) => None,
                Some(limit) => Some(Duration::from_secs(limit.into())),
            },
            ..usual
        })
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    text.parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "expected a number of seconds above 0".to_owned())
}

impl GuestArguments {
    /// The guest that these options describe, with one device and nothing shared.
    pub(crate) fn spec(&self, name: &str, interrupts: &Interrupts) -> anyhow::Result<BootSpec> {
        let mut spec = BootSpec::new(name, Machine::load(&self.machine)?);
        let device = DeviceSpec {
            memory: self.device_memory.unwrap_or(spec.machine.device.memory),
            args: self.device_arg.clone(),
            on_loss: self.restart.on_loss(),
            ..DeviceSpec::new(&spec.machine)
        };
        if let OnLoss::Restart(restarts) = device.on_loss {
            spec.driver_parameters = restarts.driver_parameters();
        }
        spec.devices = vec![device];
        spec.accelerator = self.accel;
        spec.cpus = self.cpus.unwrap_or(spec.cpus);
        spec.memory = self.memory.unwrap_or(spec.memory);
        spec.append.clone_from(&self.append);
        spec.keep_folder = self.keep;
        spec.interrupts = interrupts.clone();
        Ok(spec)
    }
}
