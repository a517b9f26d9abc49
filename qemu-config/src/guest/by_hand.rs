// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A device for a QEMU that others have started: it is plugged in, and comes back when its process dies or hangs.
//!
//! The one thing to know: QEMU is spoken to on a QMP socket that nothing else uses at the time.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::event::Event;
use super::layout::{control_socket, qemu_connection};
use super::qmp::Qmp;
use super::run_folder::RunFolder;
use super::service::Service;
use super::supervision::{hang, plug};
use super::{DeviceSpec, Interrupts, Result, device, environment, infrastructure};
use crate::Launcher;
use crate::command_line::CommandLine;
use crate::machine::{Endpoint, Machine};
use crate::supervisor::{Incident, OnLoss, Restarts, Step, Supervisor};

/// Each run has one device.
const INDEX: usize = 0;
/// How long the guest may take to let a device go before it is asked again.
const OUT_LIMIT: Duration = Duration::from_secs(15);
/// The same where QEMU refused to ask it.
const REFUSED_LIMIT: Duration = Duration::from_secs(1);

/// What is plugged in, and where.
#[derive(Debug, Clone)]
pub struct ByHand {
    /// QEMU's QMP socket.
    pub qmp: PathBuf,
    /// The root port, by QEMU's name. It has to be empty.
    pub bus: String,
    /// QEMU's name for the device.
    pub id: String,
    /// The program of the device's process.
    pub program: PathBuf,
    /// The shape whose device it is.
    pub machine: Machine,
    /// The device. How it comes back is in its [`OnLoss`].
    pub device: DeviceSpec,
    /// The folder in which a folder for logs is made.
    pub runs: PathBuf,
    /// Where a person's Ctrl-C comes from: the first one takes the device out in order, the second one ends at once.
    pub interrupts: Interrupts,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// The device is in the guest; the logs of its processes are in this folder.
    PluggedIn(PathBuf),
    /// Its process failed, or a new one could not be started.
    Lost(String),
    /// It is back, so long after it was lost.
    Back(Duration),
}

/// Why it is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// QEMU is gone.
    QemuEnded,
    /// The device was taken out because a person asked for the end.
    TakenOut,
    /// The device failed too often. It is out of the guest.
    GivenUp(String),
}

impl ByHand {
    /// Plugs the device in and brings it back until the end.
    ///
    /// # Errors
    /// When QEMU cannot be spoken to, or the device not be plugged in for the first time.
    pub fn run(&self, told: &mut dyn FnMut(News)) -> Result<Ending> {
        let mut session = self.begin()?;
        self.interrupts.attach(&session.sender);
        (session.start_and_plug())
            .map_err(|error| infrastructure(format!("the device cannot be plugged in: {error}")))?;
        session.watch_for_hangs();
        told(News::PluggedIn(session.folder.path().to_owned()));
        let ending = session.serve(told);
        if !matches!(ending, Ending::TakenOut) {
            session.folder.keep();
        }
        Ok(ending)
    }

    fn begin(&self) -> Result<Session<'_>> {
        let failed = |what: &str, error: io::Error| environment(format!("{what}: {error}"));
        let folder = RunFolder::create(&self.runs, "supervise")
            .map_err(|error| failed("no folder for the logs", error))?;
        let name = self.qmp.display();
        let connect = || -> io::Result<_> {
            let (sender, events) = mpsc::channel();
            let told = sender.clone();
            let socket = UnixStream::connect(&self.qmp)?;
            let log = folder.create_file("qmp.log")?;
            let mut qmp = Qmp::new(socket, log, move |event, data| {
                let _ = told.send(Event::Qmp { event, data });
            })?;
            qmp.negotiate()?;
            Ok((qmp, sender, events))
        };
        let (qmp, sender, events) =
            connect().map_err(|error| failed(&format!("cannot speak to QEMU at {name}"), error))?;
        let restarts = match self.device.on_loss {
            OnLoss::EndRun => Restarts {
                attempts: 0,
                ..Restarts::default()
            },
            OnLoss::Restart(restarts) => restarts,
        };
        let memory = device::memory(&self.device)
            .map_err(|error| failed("no memory for the device", error))?;
        Ok(Session {
            plan: self,
            folder,
            qmp,
            sender,
            events,
            restarts,
            supervisor: Supervisor::new(restarts, Instant::now()),
            memory,
            run: 0,
            process: None,
            lost_at: None,
            asked_to_end: false,
        })
    }

    fn arguments(&self) -> Map<String, Value> {
        let part = self.device.part(Endpoint::Fd(0));
        let mut arguments = self.machine.device_arguments(INDEX, &part);
        for (name, value) in [
            ("bus", &self.bus),
            ("id", &self.id),
            ("chardev", &self.connection()),
        ] {
            arguments.insert(name.to_owned(), json!(value));
        }
        arguments
    }

    /// QEMU's name for the connection.
    fn connection(&self) -> String {
        format!("{}-{}", self.id, qemu_connection(INDEX))
    }

    fn line(&self) -> CommandLine {
        let mut line = CommandLine::new(&Launcher {
            program: self.program.clone(),
            args: Vec::<OsString>::new(),
        });
        for (name, value) in device::sockets(INDEX) {
            line.option(name, value);
        }
        line.option("--memory", self.device.memory.to_string());
        line.option("--bulk-queues", self.device.bulk_queues.to_string());
        line.option("--job-queues", self.device.job_queues.to_string());
        line.option("--queue-size", self.device.queue_size.to_string());
        for arg in &self.device.args {
            line.arg(arg);
        }
        line
    }
}

/// A device that is plugged in.
struct Session<'a> {
    plan: &'a ByHand,
    folder: RunFolder,
    qmp: Qmp,
    sender: Sender<Event>,
    events: Receiver<Event>,
    restarts: Restarts,
    supervisor: Supervisor,
    memory: Option<OwnedFd>,
    /// Number of the process, from 1.
    run: u32,
    process: Option<Service>,
    lost_at: Option<Instant>,
    asked_to_end: bool,
}

/// What came of a step.
enum Turn {
    /// It goes on.
    On,
    /// Something happened at once.
    Incident(Incident),
    /// It is over.
    Over(Ending),
}

impl Session<'_> {
    fn serve(&mut self, told: &mut dyn FnMut(News)) -> Ending {
        loop {
            // The sender is here, so that events do not end.
            let Ok(event) = self.events.recv() else {
                return Ending::QemuEnded;
            };
            let incident = match event {
                Event::Ended { process, status }
                    if process == device::process_name(INDEX, self.run) =>
                {
                    Incident::Ended(match status {
                        Ok(status) => status.to_string(),
                        Err(error) => error.to_string(),
                    })
                }
                Event::Qmp { event, data }
                    if event == "DEVICE_DELETED" && data["device"] == self.plan.id.as_str() =>
                {
                    if self.asked_to_end {
                        return Ending::TakenOut;
                    }
                    Incident::OutOfGuest
                }
                Event::Device { run, incident, .. } if run == self.run => incident,
                Event::Interrupt(_) if self.asked_to_end => return Ending::TakenOut,
                Event::Interrupt(_) => {
                    self.asked_to_end = true;
                    if !self.supervisor.is_serving() {
                        return Ending::TakenOut;
                    }
                    match self.take_out() {
                        Turn::Over(ending) => return ending,
                        _ => continue,
                    }
                }
                _ => continue,
            };
            // Its process ends when QEMU has left it.
            if self.asked_to_end {
                continue;
            }
            if let Some(ending) = self.incident(incident, told) {
                return ending;
            }
        }
    }

    fn incident(&mut self, incident: Incident, told: &mut dyn FnMut(News)) -> Option<Ending> {
        let mut next = Some(incident);
        while let Some(incident) = next.take() {
            let now = Instant::now();
            match &incident {
                Incident::Ended(cause) | Incident::Hangs(cause) if self.supervisor.is_serving() => {
                    self.lost_at = Some(now);
                    told(News::Lost(cause.clone()));
                }
                Incident::Failed(cause) => told(News::Lost(cause.clone())),
                Incident::PluggedIn => {
                    self.watch_for_hangs();
                    if let Some(lost_at) = self.lost_at.take() {
                        told(News::Back(now.saturating_duration_since(lost_at)));
                    }
                }
                _ => {}
            }
            let step = self.supervisor.next(incident, now)?;
            match self.take_step(step) {
                Turn::On => {}
                Turn::Incident(incident) => next = Some(incident),
                Turn::Over(ending) => return Some(ending),
            }
        }
        None
    }

    fn take_step(&mut self, step: Step) -> Turn {
        match step {
            Step::Kill => {
                if let Some(process) = &self.process {
                    process.kill();
                }
                Turn::On
            }
            Step::TakeOut => self.take_out(),
            Step::Rest(time) => {
                self.later(time, Incident::Rested);
                Turn::On
            }
            Step::Start => match self.start_and_plug() {
                Ok(()) => Turn::Incident(Incident::PluggedIn),
                Err(error) if plug::is_end(&error) => Turn::Over(Ending::QemuEnded),
                Err(error) => Turn::Incident(Incident::Failed(error.to_string())),
            },
            Step::GiveUp(text) => Turn::Over(Ending::GivenUp(text)),
        }
    }

    fn take_out(&mut self) -> Turn {
        let limit = match (self.qmp).execute("device_del", json!({ "id": self.plan.id })) {
            Ok(_) => OUT_LIMIT,
            Err(error) if error.to_string().contains("DeviceNotFound") => {
                return Turn::Incident(Incident::OutOfGuest);
            }
            Err(error) if plug::is_refusal(&error) => REFUSED_LIMIT,
            Err(_) => return Turn::Over(Ending::QemuEnded),
        };
        self.later(limit, Incident::NotOutOfGuest);
        Turn::On
    }

    fn start_and_plug(&mut self) -> io::Result<()> {
        self.run = self.run.saturating_add(1);
        let started = device::launch(
            self.plan.line(),
            &self.folder,
            &self.sender,
            INDEX,
            self.run,
            &self.memory,
            true,
        )?;
        self.process = Some(started.process);
        let connection = self.plan.connection();
        plug::release(&mut self.qmp, &connection)?;
        plug::plug_in(
            &mut self.qmp,
            &connection,
            &format!("{connection}-{}", self.run),
            started.connection.as_fd(),
            self.plan.arguments(),
        )
    }

    fn watch_for_hangs(&self) {
        let Some(limit) = self.restarts.hang else {
            return;
        };
        let (sender, run) = (self.sender.clone(), self.run);
        let folder = self.folder.path().to_owned();
        hang::watch(folder, control_socket(INDEX), limit, move |text| {
            // The receiver is gone at the end.
            let _ = sender.send(Event::Device {
                index: INDEX,
                run,
                incident: Incident::Hangs(text),
            });
        });
    }

    /// Tells an incident of the process of now, after some time.
    fn later(&self, time: Duration, incident: Incident) {
        let (sender, run) = (self.sender.clone(), self.run);
        thread::spawn(move || {
            thread::sleep(time);
            let _ = sender.send(Event::Device {
                index: INDEX,
                run,
                incident,
            });
        });
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixListener;

    use super::*;

    /// A QEMU that does what it is asked, and tells of each command. It ends after so many devices.
    fn qemu(listener: UnixListener, commands: Sender<String>, devices: u32) {
        let (socket, _) = listener.accept().unwrap();
        let mut out = socket.try_clone().unwrap();
        out.write_all(b"{\"QMP\": {}}\n").unwrap();
        let mut added = 0;
        for line in BufReader::new(socket).lines() {
            let command: Value = serde_json::from_str(&line.unwrap()).unwrap();
            let name = command["execute"].as_str().unwrap();
            commands.send(name.to_owned()).unwrap();
            let answer = match name {
                // As in QEMU, the connection is free only when the device has gone.
                "chardev-remove" if added == 0 => {
                    json!({"error": {"class": "GenericError", "desc": "Chardev not found"}})
                }
                _ => json!({"return": {}}),
            };
            writeln!(out, "{answer}").unwrap();
            if name == "device_del" {
                let event = json!({"event": "DEVICE_DELETED", "data": {"device": "card"}});
                writeln!(out, "{event}").unwrap();
            }
            if name == "device_add" {
                assert_eq!(command["arguments"]["bus"], "port");
                assert_eq!(command["arguments"]["id"], "card");
                added += 1;
                if added == devices {
                    return;
                }
            }
        }
    }

    /// A process that ends at once, each time, in a folder of its own.
    fn plan(folder: &std::path::Path, attempts: u32) -> ByHand {
        let program = folder.join("device");
        std::fs::write(&program, "#!/bin/sh\nexit 7\n").unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o700)).unwrap();
        let machine = Machine::load("q35").unwrap();
        let device = DeviceSpec {
            on_loss: OnLoss::Restart(Restarts {
                attempts,
                back_off: Duration::from_millis(1),
                hang: None,
                ..Restarts::default()
            }),
            ..DeviceSpec::new(&machine)
        };
        ByHand {
            qmp: folder.join("qmp"),
            bus: "port".to_owned(),
            id: "card".to_owned(),
            program,
            machine,
            device,
            runs: folder.join("runs"),
            interrupts: Interrupts::default(),
        }
    }

    fn run(attempts: u32, devices: u32) -> (Ending, Vec<News>, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        let plan = plan(folder.path(), attempts);
        let listener = UnixListener::bind(&plan.qmp).unwrap();
        let (sender, commands) = mpsc::channel();
        let other = thread::spawn(move || qemu(listener, sender, devices));
        let mut news = Vec::new();
        let ending = plan.run(&mut |one| news.push(one)).unwrap();
        other.join().unwrap();
        (ending, news, commands.try_iter().collect())
    }

    #[test]
    fn a_device_that_fails_is_taken_out_first_and_then_plugged_in_again() {
        let (ending, news, commands) = run(1, u32::MAX);
        let plug = ["chardev-remove", "getfd", "chardev-add", "device_add"];
        let expected: Vec<&str> = ["qmp_capabilities"]
            .into_iter()
            .chain(plug)
            .chain(["device_del"])
            .chain(plug)
            .chain(["device_del"])
            .collect();
        assert_eq!(commands, expected);
        let Ending::GivenUp(text) = ending else {
            panic!("{ending:?}");
        };
        assert!(text.contains("exit status: 7"), "{text}");
        assert!(
            matches!(
                news.as_slice(),
                [
                    News::PluggedIn(_),
                    News::Lost(_),
                    News::Back(_),
                    News::Lost(_)
                ]
            ),
            "{news:?}"
        );
    }

    #[test]
    fn the_end_of_qemu_is_the_end() {
        let (ending, ..) = run(5, 2);
        assert_eq!(ending, Ending::QemuEnded);
    }

    #[test]
    fn a_qemu_that_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = plan(folder.path(), 1).run(&mut |_| {}).unwrap_err();
        assert!(error.to_string().contains("/qmp"), "{error}");
    }
}
