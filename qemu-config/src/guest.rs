// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A running guest.
//!
//! [`Guest::boot`] starts the device processes, QEMU and what else the [`BootSpec`] asks for, and returns when the
//! guest's init has said that it is ready. Then the guest runs commands ([`Guest::exec`]) and its own cases
//! ([`Guest::cases`]), one at a time. Everything that can happen meanwhile, from a panic to a Ctrl-C, comes through
//! one queue of events, so that no wait is without an end.

mod boot;
mod by_hand;
mod cases;
mod collected;
mod command;
mod control;
mod device;
mod error;
mod event;
mod image;
mod input;
mod interrupts;
mod layout;
mod output;
mod qmp;
mod run_folder;
mod service;
mod share;
mod spec;
mod supervision;
mod watch;

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use hmm_control::{Hello, Report, Request};
use serde_json::{Value, json};

pub use by_hand::{ByHand, Ending, News};
pub use collected::Collected;
pub use command::{Command, CommandEnd, CommandOutput, Streams};
pub use error::{GuestError, GuestErrorKind, Result};
pub(crate) use error::{environment, infrastructure};
pub use hmm_control::plan::PROGRAMS;
pub use hmm_control::{
    Depth, ExecError, ExitStatus, HostRoot, Load, ModuleReport, Root, WOKE_WELL, WindowSize,
};
pub use input::Input;
pub use interrupts::Interrupts;
pub use layout::DryRun;
pub use spec::{BootSpec, DeviceSpec};
pub use supervision::Loss;

use crate::Artifacts;
use crate::accel::Decision;
use crate::machine::Machine;
use device::Device;
use event::Event;
use input::InputPort;
use output::OutputPort;
use qmp::Qmp;
use run_folder::RunFolder;
use service::Service;
use watch::{Limit, Watch};

/// How long the guest may take to power off.
const POWER_OFF_LIMIT: Duration = Duration::from_secs(60);
/// How long the guest may take to let a device go. Its memory comes home first.
const UNPLUG_LIMIT: Duration = Duration::from_secs(120);

/// A guest that is ready to do things. It is ended when the value is dropped.
pub struct Guest {
    folder: RunFolder,
    hello: Hello,
    decision: Decision,
    control: UnixStream,
    stdin: InputPort,
    stdout: OutputPort,
    stderr: OutputPort,
    ktap: OutputPort,
    devices: Vec<Device>,
    /// What processes of devices are started from.
    artifacts: Artifacts,
    machine: Machine,
    qmp: Qmp,
    events: Receiver<Event>,
    sender: Sender<Event>,
    watch: Watch,
    /// The number of the last command.
    command: u64,
    /// QEMU is killed before the processes that serve it.
    qemu: Service,
    /// Kept for its end, too.
    _share: Option<Service>,
}

/// A guest that has powered off. Its folder is removed with the value, unless it was to be kept.
#[derive(Debug)]
pub struct Finished {
    folder: RunFolder,
}

impl Guest {
    /// What the guest said when it was ready: its kernel, the driver and the device nodes.
    #[must_use]
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Which accelerator it runs with, and why.
    #[must_use]
    pub fn accelerator(&self) -> &Decision {
        &self.decision
    }

    /// The folder with its logs.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Leaves the folder with the logs where it is.
    pub fn keep_folder(&self) {
        self.folder.keep();
    }

    /// The kernel's log so far.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn serial_log(&self) -> io::Result<String> {
        serial_log(&self.folder)
    }

    /// Sends a JSON value to the control socket of a device process and returns its reply.
    ///
    /// # Errors
    /// When there is no such device, or its process does not answer.
    pub fn device_control(&mut self, index: usize, request: &Value) -> Result<Value> {
        device::ask(&self.devices, &self.folder, index, request)
            .map_err(|error| self.failed(infrastructure(error.to_string())))
    }

    /// Takes a device out, as a person pulls a card after pressing its button, and waits until the guest has let it
    /// go.
    ///
    /// # Errors
    /// When there is no such device, or the guest does not let it go.
    pub fn unplug(&mut self, index: usize) -> Result<()> {
        let device = layout::qemu_device(index);
        let limit = Limit::new("taking the device out", UNPLUG_LIMIT);
        self.ask_to_unplug(index)
            .map_err(|error| self.failed(infrastructure(error.to_string())))?;
        loop {
            if let Event::Qmp { event, data } = self.next(Some(&limit))?
                && event == "DEVICE_DELETED"
                && data["device"] == device.as_str()
            {
                return Ok(());
            }
        }
    }

    /// Presses the button of a device.
    fn ask_to_unplug(&mut self, index: usize) -> io::Result<()> {
        let name = self
            .devices
            .get(index)
            .map_or_else(|| layout::device_name(index), Device::process_name);
        self.watch.release(&name);
        self.qmp
            .execute("device_del", json!({"id": layout::qemu_device(index)}))
            .map(drop)
    }

    /// Runs one case that powers the guest off itself, and waits for that.
    ///
    /// # Errors
    /// When the guest does not end within `limit`, or not in good order.
    pub fn case_that_powers_off(mut self, case: &str, limit: Duration) -> Result<Finished> {
        let limit = Limit::new(case, limit);
        self.send(&Request::Cases {
            filter: vec![format!("={case}")],
            load: Load::default(),
        })?;
        while !self.watch.powered_off() {
            if let Event::Report(Report::CasesEnded { .. }) = self.next(Some(&limit))? {
                let text = format!("{case} ended and the guest is still there");
                return Err(self.failed(infrastructure(text)));
            }
        }
        let Self { folder, .. } = self;
        Ok(Finished { folder })
    }

    /// Runs one case that reboots the guest, and waits until the guest is ready again.
    ///
    /// # Errors
    /// When the guest does not get ready within `limit`.
    pub fn case_that_reboots(&mut self, case: &str, limit: Duration) -> Result<()> {
        let limit = Limit::new(case, limit);
        self.send(&Request::Cases {
            filter: vec![format!("={case}")],
            load: Load::default(),
        })?;
        loop {
            match self.next(Some(&limit))? {
                Event::Report(Report::CasesEnded { .. }) => {
                    let text = format!("{case} ended and the guest has not rebooted");
                    return Err(self.failed(infrastructure(text)));
                }
                Event::Report(Report::Hello(hello)) => {
                    if let ModuleReport::Failed { reason } = &hello.module {
                        let text = format!("the driver does not load after a reboot: {reason}");
                        return Err(self.failed(infrastructure(text)));
                    }
                    self.hello = hello;
                    return Ok(());
                }
                _ => {}
            }
        }
    }

    /// Powers the guest off and waits for it.
    ///
    /// # Errors
    /// When the guest does not end, or not in good order.
    pub fn power_off(mut self) -> Result<Finished> {
        self.watch.expect_power_off();
        let limit = Limit::new("powering off", POWER_OFF_LIMIT);
        self.send(&Request::Poweroff)?;
        while !self.watch.powered_off() {
            self.next(Some(&limit))?;
        }
        let Self { folder, .. } = self;
        Ok(Finished { folder })
    }

    fn send(&mut self, request: &Request) -> Result<()> {
        hmm_control::line::write(&mut self.control, request).map_err(|error| {
            self.failed(infrastructure(format!(
                "the guest takes no requests any more: {error}"
            )))
        })
    }

    /// Waits for something that the caller has to deal with. What concerns the guest as a whole is dealt with here.
    fn next(&mut self, limit: Option<&Limit>) -> Result<Event> {
        loop {
            let event = self
                .watch
                .receive(&self.events, limit)
                .map_err(|error| self.failed(error))?;
            match event {
                Event::Report(Report::Ask { id, question }) => self.answer(id, question)?,
                Event::Qmp { event, data } => {
                    self.watch
                        .qmp(&event, &data, &mut self.qmp)
                        .map_err(|error| self.failed(error))?;
                    if event == "DEVICE_DELETED" {
                        self.device_is_out(&data);
                    }
                    return Ok(Event::Qmp { event, data });
                }
                Event::Ended { process, status } if self.is_supervised(&process) => {
                    self.supervised_ended(&process, &status);
                }
                Event::Device {
                    index,
                    run,
                    incident,
                } => self.incident(index, Some(run), incident),
                Event::Ended { process, status } => {
                    self.watch
                        .ended(&process, &status, &self.folder)
                        .map_err(|error| self.failed(error))?;
                    return Ok(Event::Ended { process, status });
                }
                Event::ControlLost(reason) => self.watch.control_lost(&reason),
                other => return Ok(other),
            }
        }
    }

    /// Ends everything after a failure and leaves the logs for the person who looks into it.
    fn failed(&self, error: GuestError) -> GuestError {
        self.folder.keep();
        self.qemu.kill();
        error.with_logs(self.folder.path().to_owned())
    }

    /// Waits a moment until the sinks have what the guest sent before it failed.
    fn settle(&self, mut streams: usize) {
        let end = Instant::now() + Duration::from_secs(2);
        while streams > 0 {
            match self
                .events
                .recv_timeout(end.saturating_duration_since(Instant::now()))
            {
                Ok(Event::OutputDone(..)) => streams -= 1,
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }
}

impl Finished {
    /// The kernel's whole log.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn serial_log(&self) -> io::Result<String> {
        serial_log(&self.folder)
    }

    /// The folder with the logs.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Leaves the folder where it is.
    pub fn keep_folder(&self) {
        self.folder.keep();
    }
}

fn serial_log(folder: &RunFolder) -> io::Result<String> {
    let bytes = std::fs::read(folder.file(layout::SERIAL_LOG))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
