// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What kind of guest is wanted.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::interrupts::Interrupts;
use crate::accel::AcceleratorChoice;
use crate::initramfs::Tree;
use crate::machine::{DevicePart, Endpoint, Machine};
use crate::size::ByteSize;
use crate::supervisor::OnLoss;

/// A guest to boot. [`BootSpec::new`] gives the usual one: one device, the driver loaded, nothing shared.
#[derive(Debug, Clone)]
pub struct BootSpec {
    /// The first part of the name of the boot's folder.
    pub name: String,
    /// The machine's shape.
    pub machine: Machine,
    /// How the guest's processors run.
    pub accelerator: AcceleratorChoice,
    /// How many processors.
    pub cpus: u32,
    /// How much memory the system side has.
    pub memory: ByteSize,
    /// The devices, in the order in which the guest finds them.
    pub devices: Vec<DeviceSpec>,
    /// Modules that the guest loads before the driver, in this order, beside those that the kernel itself needs.
    pub modules: Vec<PathBuf>,
    /// Whether the driver is in the image and loaded.
    pub load_driver: bool,
    /// How many device nodes the driver has to make before the guest is ready; one for each device when `None`.
    pub device_nodes: Option<u32>,
    /// Module parameters, as `insmod` takes them.
    pub driver_parameters: String,
    /// Further arguments for the kernel; they stand last, so that they win.
    pub append: Vec<String>,
    /// Whether the guest sees the host's root folder.
    pub share_host_root: bool,
    /// What the guest's image has beside its own programs.
    pub image: Tree,
    /// How long the boot may take.
    pub boot_limit: Duration,
    /// Whether the boot's folder is kept in any case.
    pub keep_folder: bool,
    /// Where a person's Ctrl-C comes from.
    pub interrupts: Interrupts,
}

impl BootSpec {
    /// The usual guest of this shape.
    #[must_use]
    pub fn new(name: &str, machine: Machine) -> Self {
        Self {
            name: name.to_owned(),
            accelerator: AcceleratorChoice::default(),
            cpus: machine.cpus,
            memory: machine.memory,
            devices: vec![DeviceSpec::new(&machine)],
            modules: Vec::new(),
            load_driver: true,
            device_nodes: None,
            driver_parameters: String::new(),
            append: Vec::new(),
            share_host_root: false,
            image: Tree::default(),
            boot_limit: Duration::from_secs(180),
            keep_folder: false,
            interrupts: Interrupts::default(),
            machine,
        }
    }
}

/// One device of the guest.
#[derive(Debug, Clone)]
pub struct DeviceSpec {
    /// How much private memory it has.
    pub memory: ByteSize,
    /// How many bulk queues it offers.
    pub bulk_queues: u32,
    /// How many job queues it offers.
    pub job_queues: u32,
    /// Entries of each queue.
    pub queue_size: u32,
    /// Further arguments for the device process.
    pub args: Vec<OsString>,
    /// What is done when its process ends unasked. To be started again, it needs a root port to itself.
    pub on_loss: OnLoss,
}

impl DeviceSpec {
    /// The device as QEMU sees it.
    pub(super) fn part(&self, endpoint: Endpoint) -> DevicePart {
        DevicePart {
            endpoint,
            bulk_queues: self.bulk_queues,
            job_queues: self.job_queues,
            queue_size: self.queue_size,
        }
    }

    /// The usual device of this shape of machine.
    #[must_use]
    pub fn new(machine: &Machine) -> Self {
        Self {
            memory: machine.device.memory,
            bulk_queues: machine.device.bulk_queues,
            job_queues: machine.device.job_queues,
            queue_size: machine.device.queue_size,
            args: Vec::new(),
            on_loss: OnLoss::default(),
        }
    }
}
