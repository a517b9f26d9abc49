// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! From a shape and its parts to a command line.

use std::ffi::{OsStr, OsString};
use std::os::fd::RawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use super::Machine;
use crate::Launcher;
use crate::accel::Accelerator;
use crate::command_line::CommandLine;
use crate::size::ByteSize;

/// How many queues stand before the bulk queues: control, event, urgent.
const FIXED_QUEUES: u32 = 3;

/// The other end of a character device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A connected socket that QEMU inherits under this number.
    Fd(RawFd),
    /// A socket that QEMU connects to.
    Connect(PathBuf),
    /// A socket that QEMU listens on.
    Listen(PathBuf),
}

/// How many queues there are for jobs: beside the job queues one for page tables and one for reports.
fn queues_for_jobs(job_queues: u32) -> u32 {
    match job_queues {
        0 => 0,
        queues => queues + 2,
    }
}

/// The number of the slot that a device is in.
pub(crate) fn slot(index: usize) -> usize {
    index + 1
}

/// A device of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DevicePart {
    /// Its process.
    pub endpoint: Endpoint,
    /// How many bulk queues it has.
    pub bulk_queues: u32,
    /// How many job queues it has; with them come two further queues.
    pub job_queues: u32,
    /// Entries of each queue.
    pub queue_size: u32,
}

/// What fills a shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    /// How the processors run.
    pub accelerator: Accelerator,
    /// How many.
    pub cpus: u32,
    /// The system side's memory.
    pub memory: ByteSize,
    /// The kernel's image.
    pub kernel: PathBuf,
    /// The guest's image.
    pub initramfs: PathBuf,
    /// Further words for the kernel.
    pub append: Vec<String>,
    /// Where the console goes.
    pub serial_log: PathBuf,
    /// Where QEMU is spoken to.
    pub qmp: Endpoint,
    /// The virtio-serial ports, by name.
    pub ports: Vec<(String, Endpoint)>,
    /// The devices.
    pub devices: Vec<DevicePart>,
    /// The process that shares a folder, and the tag under which it does.
    pub share: Option<(Endpoint, String)>,
}

impl Machine {
    /// The command that starts the machine.
    #[must_use]
    pub fn command_line(&self, qemu: &Launcher, parts: &Parts) -> CommandLine {
        let mut line = CommandLine::new(qemu);
        for option in &self.options {
            line.arg(option);
        }
        line.option(
            "-machine",
            format!("{},memory-backend=memory", self.machine),
        );
        line.option("-accel", self.accelerator.get(parts.accelerator));
        line.option("-cpu", self.cpu.get(parts.accelerator));
        line.option("-smp", parts.cpus.to_string());
        line.option("-m", parts.memory.to_string());
        // Other processes map the guest's memory, so that it has to be a shared file.
        line.option(
            "-object",
            format!(
                "memory-backend-memfd,id=memory,size={},share=on",
                parts.memory
            ),
        );
        line.option("-kernel", &parts.kernel);
        line.option("-initrd", &parts.initramfs);
        line.option("-append", self.append(parts));

        line.option(
            "-chardev",
            joined("file,id=console,path=", parts.serial_log.as_os_str(), ""),
        );
        line.option("-serial", "chardev:console");
        line.option("-chardev", socket("qmp", &parts.qmp));
        line.option("-qmp", "chardev:qmp");

        line.option(
            "-device",
            format!(
                "virtio-serial-pci,id=ports,max_ports={}",
                parts.ports.len() + 1
            ),
        );
        for (number, (name, endpoint)) in parts.ports.iter().enumerate() {
            line.option("-chardev", socket(&format!("port{number}"), endpoint));
            // Port 0 is for a console.
            line.option(
                "-device",
                format!(
                    "virtserialport,bus=ports.0,nr={},chardev=port{number},name={name}",
                    number + 1
                ),
            );
        }
        if let Some((endpoint, tag)) = &parts.share {
            line.option("-chardev", socket("share", endpoint));
            line.option(
                "-device",
                format!("{},chardev=share,tag={tag}", self.share.driver),
            );
        }
        for (index, device) in parts.devices.iter().enumerate() {
            self.add_device(&mut line, index, device);
        }
        line
    }

    fn append(&self, parts: &Parts) -> String {
        let words: Vec<&str> = self
            .kernel
            .append
            .iter()
            .chain(&parts.append)
            .map(String::as_str)
            .collect();
        words.join(" ")
    }

    fn add_device(&self, line: &mut CommandLine, index: usize, device: &DevicePart) {
        line.option(
            "-chardev",
            socket(&format!("device{index}"), &device.endpoint),
        );
        // Behind a root port of its own, a device can be taken out and put in.
        line.option(
            "-device",
            format!(
                "pcie-root-port,id=root{index},chassis={0},slot={0}",
                slot(index)
            ),
        );
        let mut text = self.device.driver.clone();
        for (name, value) in self.device_properties(index, device) {
            let value = match value {
                toml::Value::String(text) => text,
                toml::Value::Boolean(on) => if on { "on" } else { "off" }.to_owned(),
                other => other.to_string(),
            };
            text.push_str(&format!(",{name}={value}"));
        }
        line.option("-device", text);
    }

    /// What QEMU's `device_add` wants to know to plug in the device of the command line again.
    pub(crate) fn device_arguments(
        &self,
        index: usize,
        device: &DevicePart,
    ) -> serde_json::Map<String, serde_json::Value> {
        let json = |value: toml::Value| match value {
            toml::Value::Integer(number) => number.into(),
            toml::Value::Boolean(on) => on.into(),
            toml::Value::String(text) => text.into(),
            other => other.to_string().into(),
        };
        std::iter::once(("driver".to_owned(), self.device.driver.clone().into()))
            .chain(
                self.device_properties(index, device)
                    .into_iter()
                    .map(|(name, value)| (name, json(value))),
            )
            .collect()
    }

    fn device_properties(&self, index: usize, device: &DevicePart) -> Vec<(String, toml::Value)> {
        let queues = FIXED_QUEUES + device.bulk_queues + queues_for_jobs(device.job_queues);
        let own = [
            ("id", format!("hmm{index}").into()),
            ("bus", format!("root{index}").into()),
            ("chardev", format!("device{index}").into()),
            ("num_vqs", i64::from(queues).into()),
            ("vq_size", i64::from(device.queue_size).into()),
        ];
        own.into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .chain(self.device.properties.clone())
            .collect()
    }
}

fn socket(id: &str, endpoint: &Endpoint) -> OsString {
    match endpoint {
        Endpoint::Fd(number) => format!("socket,id={id},fd={number}").into(),
        Endpoint::Connect(path) => joined(&format!("socket,id={id},path="), path.as_os_str(), ""),
        Endpoint::Listen(path) => joined(
            &format!("socket,id={id},path="),
            path.as_os_str(),
            ",server=on,wait=off",
        ),
    }
}

/// A QEMU option with a path in it. QEMU ends a value at a comma; two commas stand for one.
fn joined(before: &str, path: &OsStr, after: &str) -> OsString {
    let mut bytes = before.as_bytes().to_owned();
    for byte in path.as_bytes() {
        bytes.push(*byte);
        if *byte == b',' {
            bytes.push(b',');
        }
    }
    bytes.extend_from_slice(after.as_bytes());
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts() -> Parts {
        Parts {
            accelerator: Accelerator::Tcg,
            cpus: 2,
            memory: ByteSize::mebibytes(512),
            kernel: "/k/vmlinuz".into(),
            initramfs: "/r/initramfs".into(),
            append: vec!["hmm.test=1".to_owned()],
            serial_log: "/r/a,b/serial.log".into(),
            qmp: Endpoint::Fd(3),
            ports: vec![("hmm.control".to_owned(), Endpoint::Fd(4))],
            devices: Vec::new(),
            share: None,
        }
    }

    fn render(parts: &Parts) -> Vec<String> {
        let qemu = Launcher {
            program: "qemu".into(),
            args: Vec::new(),
        };
        let line = Machine::load("q35").unwrap().command_line(&qemu, parts);
        line.args()
            .iter()
            .map(|arg| arg.to_str().unwrap().to_owned())
            .collect()
    }

    fn values_of<'a>(args: &'a [String], option: &str) -> Vec<&'a str> {
        args.windows(2)
            .filter(|pair| pair[0] == option)
            .map(|pair| pair[1].as_str())
            .collect()
    }

    /// libvirt's example is written by hand.
    #[test]
    fn the_libvirt_domain_has_the_device_of_the_machine() {
        let domain = include_str!("../../../device/packaging/libvirt-domain.xml");
        let device = (domain.split('"'))
            .find(|text| text.starts_with("vhost-user-test-device-pci,"))
            .unwrap();
        let machine = Machine::load("q35").unwrap();
        let part = DevicePart {
            endpoint: Endpoint::Fd(3),
            bulk_queues: machine.device.bulk_queues,
            job_queues: machine.device.job_queues,
            queue_size: machine.device.queue_size,
        };
        let arguments = machine.device_arguments(0, &part);
        assert!(device.starts_with(arguments["driver"].as_str().unwrap()));
        for name in ["virtio-id", "num_vqs", "vq_size", "config_size"] {
            let option = format!("{name}={}", arguments[name]);
            assert!(
                device.split(',').any(|word| word == option),
                "{option}: {device}"
            );
        }
    }

    #[test]
    fn every_device_has_its_own_port_and_queues() {
        let device = |fd, bulk_queues, job_queues| DevicePart {
            endpoint: Endpoint::Fd(fd),
            bulk_queues,
            job_queues,
            queue_size: 128,
        };
        let args = render(&Parts {
            devices: vec![device(7, 1, 0), device(8, 4, 2)],
            ..parts()
        });
        let devices = values_of(&args, "-device");
        assert!(devices.contains(
            &"vhost-user-test-device-pci,id=hmm0,bus=root0,chardev=device0,num_vqs=4,vq_size=128,config_size=128,virtio-id=37"
        ), "{devices:?}");
        assert!(devices.contains(
            &"vhost-user-test-device-pci,id=hmm1,bus=root1,chardev=device1,num_vqs=11,vq_size=128,config_size=128,virtio-id=37"
        ), "{devices:?}");
        assert!(devices.contains(&"pcie-root-port,id=root1,chassis=2,slot=2"));
        assert!(values_of(&args, "-chardev").contains(&"socket,id=device1,fd=8"));
    }

    #[test]
    fn memory_is_shared_and_the_same_everywhere() {
        let args = render(&parts());
        assert_eq!(values_of(&args, "-m"), ["512M"]);
        assert_eq!(
            values_of(&args, "-object"),
            ["memory-backend-memfd,id=memory,size=512M,share=on"]
        );
        assert_eq!(
            values_of(&args, "-machine"),
            ["q35,hpet=off,memory-backend=memory"]
        );
    }

    #[test]
    fn the_user_s_words_for_the_kernel_stand_last() {
        let args = render(&parts());
        let append = values_of(&args, "-append")[0];
        assert!(
            append.starts_with("console=ttyS0 ") && append.ends_with(" hmm.test=1"),
            "{append}"
        );
    }

    #[test]
    fn commas_in_paths_are_doubled() {
        let args = render(&parts());
        assert!(values_of(&args, "-chardev").contains(&"file,id=console,path=/r/a,,b/serial.log"));
    }

    #[test]
    fn the_accelerator_decides_the_processor() {
        let args = render(&parts());
        assert_eq!(
            (values_of(&args, "-accel"), values_of(&args, "-cpu")),
            (vec!["tcg,thread=multi"], vec!["max"])
        );
        let args = render(&Parts {
            accelerator: Accelerator::Kvm,
            ..parts()
        });
        assert_eq!(
            (values_of(&args, "-accel"), values_of(&args, "-cpu")),
            (vec!["kvm"], vec!["host"])
        );
    }

    #[test]
    fn a_shared_folder_and_listening_sockets() {
        let args = render(&Parts {
            share: Some((Endpoint::Connect("/r/share.sock".into()), "root".to_owned())),
            qmp: Endpoint::Listen("/r/qmp.sock".into()),
            ..parts()
        });
        assert!(values_of(&args, "-device").contains(&"vhost-user-fs-pci,chardev=share,tag=root"));
        let chardevs = values_of(&args, "-chardev");
        assert!(chardevs.contains(&"socket,id=share,path=/r/share.sock"));
        assert!(chardevs.contains(&"socket,id=qmp,path=/r/qmp.sock,server=on,wait=off"));
    }
}
