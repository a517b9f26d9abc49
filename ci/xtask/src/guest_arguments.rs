// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The options that every command shares which boots a guest.

use std::ffi::OsString;
use std::time::Duration;

use hmm_vm::ByteSize;
use hmm_vm::accel::AcceleratorChoice;
use hmm_vm::guest::{BootSpec, DeviceSpec, Interrupts};
use hmm_vm::machine::Machine;

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
    /// Keep the folder with the logs of the boot, and say where it is.
    #[arg(long)]
    pub(crate) keep: bool,
    /// Give up when the guest's command takes longer than this many seconds.
    #[arg(long, value_name = "S", value_parser = seconds)]
    pub(crate) timeout: Option<Duration>,
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
            ..DeviceSpec::new(&spec.machine)
        };
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
