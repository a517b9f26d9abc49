// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The processes of a boot and their command lines.

use std::fmt;
use std::path::{Path, PathBuf};

use hmm_control::port;

use super::spec::{BootSpec, DeviceSpec};
use crate::accel::Accelerator;
use crate::command_line::CommandLine;
use crate::machine::{Endpoint, Parts};
use crate::{Artifacts, Launcher};

/// What QEMU is called in messages.
pub(super) const QEMU: &str = "qemu";
/// What the process that shares the host's root folder is called.
pub(super) const SHARE: &str = "virtiofsd";
/// The console's file.
pub(super) const SERIAL_LOG: &str = "serial.log";
/// The guest's image.
pub(super) const IMAGE: &str = "initramfs.cpio";
/// The tag of the host's root folder.
pub(super) const SHARE_TAG: &str = "hostroot";

/// What a device's process is called; also QEMU's name for the device is made like this.
pub(super) fn device_name(index: usize) -> String {
    format!("device{index}")
}

/// QEMU's name for a device.
pub(super) fn qemu_device(index: usize) -> String {
    format!("hmm{index}")
}

/// QEMU's name for the connection to a device's process.
pub(super) fn qemu_connection(index: usize) -> String {
    format!("device{index}")
}

/// The log of a process.
pub(super) fn log_of(process: &str) -> String {
    format!("{process}.log")
}

/// The control socket of a device's process, in the boot's folder.
pub(super) fn control_socket(index: usize) -> String {
    format!("{}.control", device_name(index))
}

/// Where the other ends of QEMU's character devices are.
pub(super) struct Endpoints {
    pub(super) qmp: Endpoint,
    pub(super) ports: Vec<(String, Endpoint)>,
    pub(super) devices: Vec<Endpoint>,
    pub(super) share: Option<Endpoint>,
}

/// QEMU's command line.
pub(super) fn qemu(
    artifacts: &Artifacts,
    spec: &BootSpec,
    accelerator: Accelerator,
    folder: &Path,
    endpoints: Endpoints,
) -> CommandLine {
    let devices = endpoints
        .devices
        .into_iter()
        .zip(&spec.devices)
        .map(|(endpoint, device)| device.part(endpoint))
        .collect();
    let mut append = spec.append.clone();
    if artifacts.environment.kernel.debug {
        // While the kernel looks at its first processor it forgets for a moment that it has five levels of page tables,
        // and an interrupt in that moment finds KASAN taking every address for a wild one.
        append.insert(0, "no5lvl".to_owned());
    }
    if accelerator == Accelerator::Tcg {
        // Processes of the host write code into the guest's memory, from shared files and from device memory, behind the
        // back of an emulated processor, which goes on with what it has translated of a page's old contents. A kernel
        // that clears new pages itself, as Debian's does by default, makes it forget them.
        append.insert(0, "init_on_alloc=1".to_owned());
        // A soft lockup is what keeps a processor for twice so many seconds. The clock of an emulated guest can run eight
        // times as fast as a loaded host runs the guest's processors, and the default is 10.
        append.insert(0, "watchdog_thresh=60".to_owned());
    }
    let parts = Parts {
        accelerator,
        cpus: spec.cpus,
        memory: spec.memory,
        kernel: artifacts.environment.kernel.image.clone(),
        initramfs: folder.join(IMAGE),
        append,
        serial_log: folder.join(SERIAL_LOG),
        qmp: endpoints.qmp,
        ports: endpoints.ports,
        devices,
        share: endpoints
            .share
            .map(|endpoint| (endpoint, SHARE_TAG.to_owned())),
    };
    spec.machine
        .command_line(&artifacts.environment.qemu, &parts)
}

/// The command line of a device's process; it has to run in the boot's folder. `connection` is `--fd` or
/// `--socket-path` with its value.
pub(super) fn device(
    artifacts: &Artifacts,
    spec: &DeviceSpec,
    index: usize,
    connection: (&str, String),
) -> CommandLine {
    let mut line = CommandLine::new(&Launcher {
        program: artifacts.backend.clone(),
        args: Vec::new(),
    });
    line.option(connection.0, connection.1);
    line.option("--memory", spec.memory.to_string());
    line.option("--bulk-queues", spec.bulk_queues.to_string());
    line.option("--job-queues", spec.job_queues.to_string());
    line.option("--queue-size", spec.queue_size.to_string());
    line.option("--control-socket", control_socket(index));
    for arg in &spec.args {
        line.arg(arg);
    }
    line
}

/// The command line of the process that shares the host's root folder.
pub(super) fn share(artifacts: &Artifacts, connection: (&str, String)) -> CommandLine {
    let mut line = CommandLine::new(&artifacts.environment.virtiofsd);
    line.option(connection.0, connection.1);
    line.option("--shared-dir", "/");
    // The guest gets nothing that this process's user could not read, and can change nothing.
    line.arg("--readonly");
    line.option("--sandbox", "none");
    // The guest's overlay does not look into what is mounted below its lower folder.
    line.arg("--no-announce-submounts");
    // Folders and files that are known to the guest then cost no descriptor, of which there may be few.
    line.arg("--inode-file-handles=prefer");
    line.option("--cache", "auto");
    line.option("--log-level", "warn");
    line
}

/// The commands of a boot, with sockets by path, so that a person can run them one by one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DryRun {
    /// The processes that serve QEMU; they are started first, in the boot's folder.
    pub services: Vec<CommandLine>,
    /// QEMU.
    pub qemu: CommandLine,
    /// The boot's folder.
    pub folder: PathBuf,
}

impl DryRun {
    /// Renders without starting or writing anything.
    #[must_use]
    pub fn new(artifacts: &Artifacts, spec: &BootSpec, accelerator: Accelerator) -> Self {
        let folder = artifacts.runs.join(format!("{}-dry-run", spec.name));
        let socket = |name: &str| folder.join(format!("{name}.sock"));
        let shared = spec.share_host_root.then(|| socket(SHARE));
        let devices: Vec<PathBuf> = (0..spec.devices.len())
            .map(|index| socket(&device_name(index)))
            .collect();
        let text = |path: &PathBuf| path.to_string_lossy().into_owned();
        let mut services: Vec<CommandLine> = spec
            .devices
            .iter()
            .zip(&devices)
            .enumerate()
            .map(|(index, (spec, path))| {
                device(artifacts, spec, index, ("--socket-path", text(path)))
            })
            .collect();
        services.extend(
            shared
                .iter()
                .map(|path| share(artifacts, ("--socket-path", text(path)))),
        );
        let endpoints = Endpoints {
            qmp: Endpoint::Listen(socket("qmp")),
            ports: port::ALL
                .iter()
                .map(|name| ((*name).to_owned(), Endpoint::Listen(socket(name))))
                .collect(),
            devices: devices.into_iter().map(Endpoint::Connect).collect(),
            share: shared.map(Endpoint::Connect),
        };
        let qemu = qemu(artifacts, spec, accelerator, &folder, endpoints);
        Self {
            services,
            qemu,
            folder,
        }
    }
}

impl fmt::Display for DryRun {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for service in &self.services {
            writeln!(formatter, "{service} &")?;
        }
        writeln!(formatter, "{}", self.qemu)
    }
}
