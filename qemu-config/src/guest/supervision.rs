// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Devices whose process is started again when it fails: what the [`Supervisor`] decides is done here.

pub(super) mod hang;
pub(super) mod plug;

use std::io;
use std::os::fd::AsFd;
use std::process::ExitStatus;
use std::thread;
use std::time::{Duration, Instant};

use hmm_control::{Again, Comeback, Deed, Harm, Request};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::event::Event;
use super::layout::{control_socket, qemu_connection, qemu_device};
use super::{Guest, device};
use crate::machine::{self, Endpoint};
use crate::supervisor::{Incident, Restarts, Step, Supervisor};

/// How long the guest may take to let a device go before it is asked again. A person who presses the button of a slot has 5 s to
/// change their mind.
const OUT_LIMIT: Duration = Duration::from_secs(15);
/// The same where QEMU refused to ask it.
const REFUSED_LIMIT: Duration = Duration::from_secs(1);
/// How long [`Deed::Pause`] stops a process.
const PAUSE: Duration = Duration::from_secs(1);

/// A device that went and came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// Why its process ended.
    pub cause: String,
    /// Time from the end of its process to the moment at which QEMU had it plugged in again; nothing if it has not come back.
    pub away: Option<Duration>,
}

/// What is known of a device whose process is started again.
pub(super) struct Supervised {
    supervisor: Supervisor,
    restarts: Restarts,
    /// What the guest wants done with the next process.
    again: Again,
    comeback: Comeback,
    /// Whether the guest has asked for a device that comes back on request.
    is_wanted: bool,
    lost_at: Option<Instant>,
    losses: Vec<Loss>,
}

impl Supervised {
    pub(super) fn new(restarts: Restarts) -> Self {
        Self {
            supervisor: Supervisor::new(restarts, Instant::now()),
            restarts,
            again: Again::No,
            comeback: Comeback::Same,
            is_wanted: false,
            lost_at: None,
            losses: Vec::new(),
        }
    }
}

impl Guest {
    /// How often a device was lost so far, and for how long each time. Nothing for a device whose end ends the guest.
    #[must_use]
    pub fn losses(&self, index: usize) -> &[Loss] {
        self.devices
            .get(index)
            .and_then(|device| device.supervised.as_ref())
            .map_or(&[], |supervised| &supervised.losses)
    }

    /// Begins to look whether the processes answer.
    pub(super) fn watch_for_hangs(&self, index: usize) {
        let Some(device) = self.devices.get(index) else {
            return;
        };
        let limit = device
            .supervised
            .as_ref()
            .and_then(|supervised| supervised.restarts.hang);
        if let Some(limit) = limit {
            let (sender, run) = (self.sender.clone(), device.run);
            let folder = self.folder.path().to_owned();
            hang::watch(folder, control_socket(index), limit, move |text| {
                // The receiver is gone when the guest was given up.
                let _ = sender.send(Event::Device {
                    index,
                    run,
                    incident: Incident::Hangs(text),
                });
            });
        }
    }

    /// Whether the end of this process, now, is for a supervisor to deal with.
    pub(super) fn is_supervised(&self, process: &str) -> bool {
        let is_of_a_device = |device: &device::Device| {
            device.supervised.is_some() && device.process_name() == process
        };
        self.devices.iter().any(is_of_a_device) && !self.watch.may_end(process)
    }

    pub(super) fn supervised_ended(&mut self, process: &str, status: &io::Result<ExitStatus>) {
        let how = match status {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        let found = self
            .devices
            .iter()
            .position(|device| device.process_name() == process);
        if let Some(index) = found {
            self.incident(index, None, Incident::Ended(how));
        }
    }

    /// QEMU has deleted a device.
    pub(super) fn device_is_out(&mut self, data: &Value) {
        let found = (0..self.devices.len()).find(|index| data["device"] == qemu_device(*index));
        if let Some(index) = found {
            self.incident(index, None, Incident::OutOfGuest);
        }
    }

    /// Something happened to a device; of process `run`, unless it concerns any.
    pub(super) fn incident(&mut self, index: usize, run: Option<u32>, incident: Incident) {
        let Some(device) = self.devices.get_mut(index) else {
            return;
        };
        let Some(supervised) = &mut device.supervised else {
            return;
        };
        if run.is_some_and(|run| run != device.run) {
            return;
        }
        let now = Instant::now();
        match &incident {
            Incident::Ended(_) | Incident::Hangs(_) if supervised.supervisor.is_serving() => {
                supervised.lost_at = Some(now);
            }
            Incident::PluggedIn => {
                if let (Some(lost_at), Some(loss)) =
                    (supervised.lost_at.take(), supervised.losses.last_mut())
                {
                    loss.away = Some(now.saturating_duration_since(lost_at));
                }
            }
            _ => {}
        }
        if let Incident::Ended(cause) | Incident::Hangs(cause) = &incident
            && supervised.supervisor.is_serving()
        {
            supervised.losses.push(Loss {
                cause: cause.clone(),
                away: None,
            });
        }
        tracing::info!(index, run = device.run, ?incident, "device");
        let step = supervised.supervisor.next(incident, now);
        if let Some(step) = step {
            tracing::info!(index, ?step, "device");
            self.take_step(index, step);
        }
    }

    fn take_step(&mut self, index: usize, step: Step) {
        match step {
            Step::Kill => self.devices[index].process.kill(),
            Step::TakeOut => {
                let arguments = json!({ "id": qemu_device(index) });
                let limit = match self.qmp.execute("device_del", arguments) {
                    Ok(_) => {
                        self.power_off_slot(index);
                        OUT_LIMIT
                    }
                    Err(error) if plug::is_refusal(&error) => REFUSED_LIMIT,
                    Err(error) => return self.watch.wait_for_qemu(error.to_string()),
                };
                self.later(index, limit, Incident::NotOutOfGuest);
            }
            Step::Rest(time) => {
                if let Some(supervised) = &self.devices[index].supervised
                    && supervised.comeback == Comeback::OnRequest
                    && !supervised.is_wanted
                {
                    return;
                }
                self.later(index, time, Incident::Rested);
            }
            Step::Start => {
                let incident = match self.start_again(index) {
                    Ok(()) => Incident::PluggedIn,
                    Err(error) if plug::is_end(&error) => {
                        return self.watch.wait_for_qemu(error.to_string());
                    }
                    Err(error) => Incident::Failed(error.to_string()),
                };
                let is_back = incident == Incident::PluggedIn;
                self.incident(index, None, incident);
                if is_back {
                    self.watch_for_hangs(index);
                    self.harm_again(index, Again::OnceBack);
                }
            }
            Step::GiveUp(text) => tracing::warn!(index, text, "a device is given up"),
        }
    }

    /// Spares the guest the time in which a person may change their mind. Where there is no agent yet, that time passes.
    fn power_off_slot(&mut self, index: usize) {
        let request = Request::PowerOffSlot {
            number: machine::slot(index),
        };
        if self.hello.version == hmm_control::VERSION
            && let Err(error) = hmm_control::line::write(&mut self.control, &request)
        {
            tracing::warn!(index, %error, "the guest's agent cannot be told");
        }
    }

    /// Tells an incident of the process of now, after some time.
    fn later(&self, index: usize, time: Duration, incident: Incident) {
        let (sender, run) = (self.sender.clone(), self.devices[index].run);
        thread::spawn(move || {
            thread::sleep(time);
            let _ = sender.send(Event::Device {
                index,
                run,
                incident,
            });
        });
    }

    /// Starts a process, and plugs the device in.
    fn start_again(&mut self, index: usize) -> io::Result<()> {
        let device = &mut self.devices[index];
        if let Some(supervised) = &mut device.supervised {
            if supervised.comeback == Comeback::Other {
                device.memory = device::memory(&device.spec)?;
            }
            supervised.comeback = Comeback::Same;
            supervised.is_wanted = false;
        }
        let run = device.run.saturating_add(1);
        let started = device::start(
            &self.artifacts,
            &self.folder,
            &self.sender,
            index,
            &device.spec,
            run,
            &device.memory,
        )?;
        device.run = run;
        device.process = started.process;
        self.harm_again(index, Again::WhileStarting);

        let part = self.devices[index].spec.part(Endpoint::Fd(0));
        let arguments = self.machine.device_arguments(index, &part);
        let connection = qemu_connection(index);
        plug::release(&mut self.qmp, &connection)?;
        plug::plug_in(
            &mut self.qmp,
            &connection,
            &format!("{connection}-{run}"),
            started.connection.as_fd(),
            arguments,
        )
    }

    /// Does harm to a device's process, as the guest asked.
    pub(super) fn harm(&mut self, index: usize, harm: Harm) -> Result<(), String> {
        let Some(device) = self.devices.get_mut(index) else {
            return Err(format!("there is no device {index}"));
        };
        let Some(supervised) = &mut device.supervised else {
            return Err(format!("device {index} is not started again when it fails"));
        };
        if !supervised.supervisor.is_serving() {
            return Err(format!("device {index} is not there at the moment"));
        }
        supervised.again = harm.again;
        supervised.comeback = harm.comeback;
        supervised.is_wanted = false;
        match harm.deed {
            Deed::Kill => device.process.kill(),
            Deed::Terminate => device.process.signal(Signal::TERM),
            Deed::Hang => device.process.signal(Signal::STOP),
            Deed::Pause => {
                device.process.signal(Signal::STOP);
                thread::sleep(PAUSE);
                device.process.signal(Signal::CONT);
            }
        }
        Ok(())
    }

    /// Lets a device come back that waits for it.
    pub(super) fn come_back(&mut self, index: usize) -> Result<(), String> {
        let Some(device) = self.devices.get_mut(index) else {
            return Err(format!("there is no device {index}"));
        };
        let Some(supervised) = &mut device.supervised else {
            return Err(format!("device {index} is not started again when it fails"));
        };
        supervised.is_wanted = true;
        // If it is not out of the guest yet, the incident comes too early and says nothing.
        self.later(index, Duration::ZERO, Incident::Rested);
        Ok(())
    }

    fn harm_again(&mut self, index: usize, moment: Again) {
        let device = &mut self.devices[index];
        if let Some(supervised) = &mut device.supervised
            && supervised.again == moment
        {
            supervised.again = Again::No;
            device.process.kill();
        }
    }
}
