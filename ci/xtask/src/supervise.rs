// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask supervise`: a device that comes back, for a QEMU that was started by hand.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use hmm_vm::ByteSize;
use hmm_vm::guest::{ByHand, DeviceSpec, Ending, News};
use hmm_vm::machine::Machine;
use hmm_vm::supervisor::{OnLoss, Restarts};

use crate::{build, signals};

/// Arguments of `supervise`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// QEMU's QMP socket (`-qmp unix:PATH,server=on,wait=off`); nothing else may use it meanwhile.
    #[arg(long, value_name = "PATH")]
    qmp: PathBuf,
    /// An empty root port (`-device pcie-root-port,id=NAME,chassis=1`) for the device.
    #[arg(long, value_name = "NAME", default_value = "root0")]
    bus: String,
    /// QEMU's name for the device.
    #[arg(long, value_name = "NAME", default_value = "hmm0")]
    id: String,
    /// The program of the device's process; this checkout's own, built before, if not given.
    #[arg(long, value_name = "PATH")]
    program: Option<PathBuf>,
    /// How much private memory the device has.
    #[arg(long, value_name = "SIZE")]
    device_memory: Option<ByteSize>,
    /// Words to add to the command line of the device's process; it runs in a folder of its own, so paths are absolute.
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    device_arg: Vec<OsString>,
    /// The shape of machine whose device it is: one of qemu-config/machines, or a file like those.
    #[arg(long, value_name = "NAME|FILE", default_value = "q35")]
    machine: String,
    /// Give the device up after so many starts in a row.
    #[arg(long, value_name = "N", default_value_t = Restarts::default().attempts)]
    restart_attempts: u32,
    /// Milliseconds before the second start in a row; each further one waits twice as long, up to 30 s.
    #[arg(long, value_name = "MS", default_value_t = 500)]
    restart_back_off: u64,
    /// Seconds without an answer after which the process counts as hanging, and is killed; 0: never.
    #[arg(long, value_name = "S", default_value_t = 10)]
    hang_limit: u32,
}

impl Arguments {
    fn restarts(&self) -> Restarts {
        let hang = Duration::from_secs(self.hang_limit.into());
        Restarts {
            attempts: self.restart_attempts,
            back_off: Duration::from_millis(self.restart_back_off),
            hang: (!hang.is_zero()).then_some(hang),
            ..Restarts::default()
        }
    }
}

/// Plugs the device in, and brings it back until QEMU ends, the device is given up, or a signal comes.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let interrupts = signals::forward()?;
    let machine = Machine::load(&arguments.machine)?;
    let device = DeviceSpec {
        memory: arguments.device_memory.unwrap_or(machine.device.memory),
        args: arguments.device_arg.clone(),
        on_loss: OnLoss::Restart(arguments.restarts()),
        ..DeviceSpec::new(&machine)
    };
    let target = build::target_folder()?;
    let own = || target.join("release").join("vhost-user-hmm");
    let by_hand = ByHand {
        qmp: arguments.qmp.clone(),
        bus: arguments.bus.clone(),
        id: arguments.id.clone(),
        program: arguments.program.clone().unwrap_or_else(own),
        machine,
        device,
        runs: target.join("vm"),
        interrupts,
    };
    eprintln!(
        "in the guest, load the driver with: insmod virtio_hmm.ko {}",
        arguments.restarts().driver_parameters()
    );
    let ending = by_hand.run(&mut |news| match news {
        News::PluggedIn(folder) => eprintln!("device: plugged in; logs: {}", folder.display()),
        News::Lost(cause) => eprintln!("device: lost ({cause})"),
        News::Back(time) => eprintln!("device: back after {:.1} s", time.as_secs_f64()),
    })?;
    match ending {
        Ending::QemuEnded => eprintln!("QEMU has ended"),
        Ending::TakenOut => eprintln!("device: taken out"),
        Ending::GivenUp(text) => {
            eprintln!("error: the device is given up: {text}");
            return Ok(ExitCode::from(crate::INFRASTRUCTURE));
        }
    }
    Ok(ExitCode::SUCCESS)
}
