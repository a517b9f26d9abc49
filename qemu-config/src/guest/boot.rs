// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! From a specification to a guest that is ready.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use hmm_control::{Hello, ModuleReport, Report, port};

use super::device::{self, Device};
use super::event::Event;
use super::input::InputPort;
use super::layout::{self, Endpoints, QEMU, SHARE, device_name, log_of};
use super::output::{OutputPort, Stream};
use super::qmp::Qmp;
use super::run_folder::RunFolder;
use super::service::Service;
use super::watch::{Limit, Watch};
use super::{
    BootSpec, Guest, GuestError, GuestErrorKind, Result, control, environment, image,
    infrastructure, share,
};
use crate::Artifacts;
use crate::accel::{self, Decision};
use crate::command_line::CommandLine;
use crate::machine::Endpoint;

/// The first number under which a process inherits a socket.
const FIRST_FD: i32 = 3;

/// How long the reason of a start that failed may take to be known.
const TROUBLE_LIMIT: Duration = Duration::from_secs(10);

impl Guest {
    /// Boots a guest and waits until it is ready.
    ///
    /// # Errors
    /// When a part cannot be started, when the guest does not get ready in time, or when the driver does not load.
    pub fn boot(artifacts: &Artifacts, spec: &BootSpec) -> Result<Self> {
        match Self::boot_once(artifacts, spec) {
            // Under emulation a kernel now and then stops before it gets to its init. That says nothing about what is
            // to be run, so it gets a second chance; what stops twice is reported.
            Err(error) if matches!(error.kind(), GuestErrorKind::Timeout { .. }) => {
                Self::boot_once(artifacts, spec)
            }
            outcome => outcome,
        }
    }

    fn boot_once(artifacts: &Artifacts, spec: &BootSpec) -> Result<Self> {
        let decision = accel::resolve(spec.accelerator, artifacts)?;
        let folder = RunFolder::create(&artifacts.runs, &spec.name).map_err(|error| {
            environment(format!(
                "no folder for the logs in {}: {error}",
                artifacts.runs.display()
            ))
        })?;
        if spec.keep_folder {
            folder.keep();
        }
        image::tree(artifacts, spec)?
            .write(&folder.file(layout::IMAGE))
            .map_err(|error| {
                environment(format!("the guest's image cannot be written: {error}"))
            })?;
        let mut guest = start(artifacts, spec, decision, folder)?;
        for index in 0..spec.devices.len() {
            guest.watch_for_hangs(index);
        }
        guest.wait_until_ready(spec)?;
        Ok(guest)
    }

    fn wait_until_ready(&mut self, spec: &BootSpec) -> Result<()> {
        let limit = Limit::new("the boot", spec.boot_limit);
        if let Err(error) = self.qmp.negotiate() {
            // A process that refused its command line has ended, and its log says why.
            let limit = Limit::new(&format!("the start of QEMU ({error})"), TROUBLE_LIMIT);
            loop {
                self.next(Some(&limit))?;
            }
        }
        let hello = loop {
            match self.next(Some(&limit))? {
                Event::Report(Report::Hello(hello)) => break hello,
                Event::Interrupt(_) => return Err(self.failed(GuestErrorKind::Interrupted.into())),
                _ => {}
            }
        };
        if hello.version != hmm_control::VERSION {
            let text = format!(
                "the guest's init speaks version {} and this program version {}; build both again",
                hello.version,
                hmm_control::VERSION
            );
            return Err(self.failed(infrastructure(text)));
        }
        if let ModuleReport::Failed { reason } = &hello.module {
            let text = format!("the driver does not load in the guest: {reason}");
            return Err(self.failed(infrastructure(text)));
        }
        self.hello = hello;
        Ok(())
    }
}

/// A socket pair: our end, and the end that a process inherits.
fn pair() -> Result<(UnixStream, OwnedFd)> {
    let (ours, theirs) = UnixStream::pair().map_err(no_socket)?;
    Ok((ours, theirs.into()))
}

fn no_socket(error: io::Error) -> GuestError {
    environment(format!("no socket for the guest: {error}"))
}

/// The sockets that one process inherits, numbered as they are added.
#[derive(Default)]
struct Inherited(Vec<(i32, OwnedFd)>);

impl Inherited {
    fn add(&mut self, fd: OwnedFd) -> i32 {
        // A process gets a handful of sockets.
        let number = FIRST_FD + i32::try_from(self.0.len()).unwrap_or(0);
        self.0.push((number, fd));
        number
    }
}

/// What every part needs to be started.
struct Starter<'a> {
    folder: &'a RunFolder,
    sender: &'a Sender<Event>,
    log: String,
}

impl Starter<'_> {
    fn start(&mut self, name: &str, line: &CommandLine, inherited: Inherited) -> Result<Service> {
        self.log.push_str(&format!("{line}\n"));
        let failed = |error: io::Error| {
            environment(format!(
                "{name} cannot be started: {error}; its command: {line}"
            ))
        };
        let log = self.folder.create_file(&log_of(name)).map_err(failed)?;
        let mut command = line.command();
        command.current_dir(self.folder.path());
        let sender = self.sender.clone();
        let process = name.to_owned();
        Service::start(command, inherited.0, &log, move |status| {
            // The receiver is gone when the guest was given up.
            let _ = sender.send(Event::Ended { process, status });
        })
        .map_err(failed)
    }
}

fn start(
    artifacts: &Artifacts,
    spec: &BootSpec,
    decision: Decision,
    folder: RunFolder,
) -> Result<Guest> {
    let (sender, events): (Sender<Event>, Receiver<Event>) = mpsc::channel();
    let mut starter = Starter {
        folder: &folder,
        sender: &sender,
        log: String::new(),
    };
    let mut inherited = Inherited::default();

    let mut devices = Vec::new();
    let mut device_endpoints = Vec::new();
    for (index, device) in spec.devices.iter().enumerate() {
        let failed =
            |error| environment(format!("{} cannot be started: {error}", device_name(index)));
        let memory = device::memory(device).map_err(failed)?;
        let started = device::start(artifacts, &folder, &sender, index, device, 1, &memory)
            .map_err(failed)?;
        starter.log.push_str(&format!("{}\n", started.line));
        devices.push(Device::new(index, device.clone(), memory, started.process));
        device_endpoints.push(Endpoint::Fd(inherited.add(started.connection)));
    }

    let mut share_process = None;
    let mut share_endpoint = None;
    if spec.share_host_root {
        let (listener, connection) = share::sockets(&folder).map_err(no_socket)?;
        let mut own = Inherited::default();
        let number = own.add(listener.into());
        let line = layout::share(artifacts, ("--fd", number.to_string()));
        share_process = Some(starter.start(SHARE, &line, own)?);
        share_endpoint = Some(Endpoint::Fd(inherited.add(connection.into())));
    }

    let (qmp_socket, theirs) = pair()?;
    let qmp_endpoint = Endpoint::Fd(inherited.add(theirs));
    let mut ports = Vec::new();
    let mut port_endpoints = Vec::new();
    for name in port::ALL {
        let (ours, theirs) = pair()?;
        ports.push(ours);
        port_endpoints.push((name.to_owned(), Endpoint::Fd(inherited.add(theirs))));
    }
    let [control_socket, stdin, stdout, stderr, ktap, guest_events]: [UnixStream; port::ALL.len()] =
        ports
            .try_into()
            .map_err(|_| infrastructure("a port is missing"))?;

    let endpoints = Endpoints {
        qmp: qmp_endpoint,
        ports: port_endpoints,
        devices: device_endpoints,
        share: share_endpoint,
    };
    let line = layout::qemu(
        artifacts,
        spec,
        decision.accelerator,
        folder.path(),
        endpoints,
    );
    let qemu = starter.start(QEMU, &line, inherited)?;
    let commands = starter.log;

    let connect = || -> io::Result<_> {
        std::fs::write(folder.file("cmdline.txt"), commands)?;
        let told = sender.clone();
        let qmp = Qmp::new(
            qmp_socket,
            folder.create_file("qmp.log")?,
            move |event, data| {
                let _ = told.send(Event::Qmp { event, data });
            },
        )?;
        control::listen(control_socket.try_clone()?, sender.clone())?;
        save(guest_events, folder.create_file("events.jsonl")?)?;
        Ok((
            qmp,
            OutputPort::new(Stream::Stdout, stdout)?,
            OutputPort::new(Stream::Stderr, stderr)?,
            OutputPort::new(Stream::Ktap, ktap)?,
        ))
    };
    let (qmp, stdout, stderr, ktap) =
        connect().map_err(|error| environment(format!("cannot listen to the guest: {error}")))?;
    spec.interrupts.attach(&sender);
    Ok(Guest {
        folder,
        // Replaced by what the guest says before anybody can see it.
        hello: Hello {
            version: 0,
            kernel: String::new(),
            module: ModuleReport::None,
            devices: Vec::new(),
            host_root: None,
        },
        decision,
        control: control_socket,
        stdin: InputPort::new(stdin),
        stdout,
        stderr,
        ktap,
        devices,
        artifacts: artifacts.clone(),
        machine: spec.machine.clone(),
        qmp,
        events,
        sender,
        watch: Watch::default(),
        command: 0,
        qemu,
        _share: share_process,
    })
}

/// Copies a port to a file until it ends.
fn save(mut port: UnixStream, mut file: File) -> io::Result<()> {
    std::thread::Builder::new()
        .name("events port".to_owned())
        .spawn(move || {
            // The port fails when QEMU is killed; what came before is in the file.
            let _ = io::copy(&mut port, &mut file);
        })?;
    Ok(())
}
