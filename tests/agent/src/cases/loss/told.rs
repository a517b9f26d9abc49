// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What programs are told: by `poll()`, by uevents, by `hmmctl watch`.

use super::trial::Trial;
use crate::cases::support::prelude::*;
use crate::cases::support::tracefs::Recording;
use hmm_control::plan;
use hmm_uapi::client::Presence;
use std::io::{BufRead, BufReader, Lines};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::process::{self, ChildStdout, Command, Stdio};

pub(super) const CASES: &[Case] = &[
    Case::new("loss/poll-tells", poll_tells),
    Case::new("loss/uevents", uevents),
    Case::new("loss/trace-events", traced),
    Case::new("loss/hmmctl-watch", watch),
];

fn expect(trial: &Trial, expected: Presence) -> Result<()> {
    let found = trial.mover.device.presence()?;
    ensure!(
        found == expected,
        "poll() tells of {found:?}, not {expected:?}"
    );
    Ok(())
}

/// A device that is there, lost, and there again; and one that is gone.
fn poll_tells() -> Result<()> {
    poll_tells_of_return()?;
    let trial = Trial::with_short_wait()?;
    let _memory = trial.memory(100, 1)?;
    trial.lose()?;
    let gone = trial.mover.device.wait_for_change(Some(Presence::Lost))?;
    ensure!(gone == Presence::Gone, "a waiter was told of {gone:?}");
    expect(&trial, Presence::Gone)
}

fn poll_tells_of_return() -> Result<()> {
    let trial = Trial::new()?;
    expect(&trial, Presence::Present)?;
    let memory = trial.memory(100, 1)?;
    std::thread::scope(|scope| -> Result<()> {
        let device = &trial.mover.device;
        let told = scope.spawn(|| device.wait_for_change(Some(Presence::Present)));
        trial.lose()?;
        match told.join() {
            Ok(found) => ensure!(
                found? == Presence::Lost,
                "a waiter was told of another change"
            ),
            Err(_) => bail!("the waiter panicked"),
        }
        Ok(())
    })?;
    trial.come_back()?;
    expect(&trial, Presence::Present)?;
    memory.check(1)
}

/// The kernel's messages about devices.
struct Uevents(OwnedFd);

impl Uevents {
    /// Those that come from now on.
    fn listen() -> Result<Self> {
        // SAFETY: The call takes no pointers.
        let socket = unsafe {
            libc::socket(
                libc::AF_NETLINK,
                libc::SOCK_DGRAM | libc::SOCK_CLOEXEC,
                libc::NETLINK_KOBJECT_UEVENT,
            )
        };
        ensure!(socket >= 0, std::io::Error::last_os_error());
        // SAFETY: The descriptor is new, and nobody else's.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        // SAFETY: All zero is a valid address.
        let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
        // The kernel's own messages.
        address.nl_groups = 1;
        // SAFETY: The address is one of netlink, of the size that is given.
        let bound = unsafe {
            libc::bind(
                socket.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_nl>() as libc::socklen_t,
            )
        };
        ensure!(bound == 0, std::io::Error::last_os_error());
        Ok(Self(socket))
    }

    /// Waits for the next word about the first device.
    fn next(&self) -> Result<String> {
        let mut buffer = [0; 4096];
        loop {
            let read = rustix::io::read(&self.0, &mut buffer)?;
            let message = String::from_utf8_lossy(&buffer[..read]).into_owned();
            let fields: Vec<&str> = message.split('\0').collect();
            if fields.contains(&"DEVNAME=hmm0") && fields.contains(&"ACTION=change") {
                let word = fields
                    .iter()
                    .find_map(|field| field.strip_prefix("HMM_DEVICE="));
                return Ok(word.context("a change without a word")?.to_owned());
            }
        }
    }

    fn expect(&self, expected: &str) -> Result<()> {
        let found = self.next()?;
        ensure!(found == expected, "a uevent says {found}, not {expected}");
        Ok(())
    }
}

fn uevents() -> Result<()> {
    uevents_of_return()?;
    let trial = Trial::with_short_wait()?;
    let _memory = trial.memory(100, 1)?;
    let uevents = Uevents::listen()?;
    trial.lose()?;
    uevents.expect("lost")?;
    uevents.expect("gone")
}

fn uevents_of_return() -> Result<()> {
    let trial = Trial::new()?;
    let memory = trial.memory(100, 1)?;
    let uevents = Uevents::listen()?;
    trial.lose()?;
    uevents.expect("lost")?;
    trial.come_back()?;
    uevents.expect("returned")?;
    memory.check(1)?;
    trial.mover.all_to_device(memory.range())?;
    trial.lose()?;
    uevents.expect("lost")?;
    trial.faults.renew()?;
    trial.is_refused()?;
    uevents.expect("refused")
}

fn traced() -> Result<()> {
    let trial = Trial::new()?;
    let recording = Recording::start()?;
    let memory = trial.memory(100, 1)?;
    trial.lose()?;
    trial.come_back()?;
    memory.check(1)?;
    let told = loop {
        let told = recording.named("presence")?;
        if told.len() >= 2 {
            break told;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    };
    for (event, expected) in told.iter().zip(["lost", "returned"]) {
        ensure!(
            event.is("node", "hmm0") && event.is("presence", expected),
            "an event tells of something else than {expected}"
        );
        ensure!(event.number("resident")? > 0, "nothing is resident");
    }
    ensure!(told.len() == 2, "{} changes were told", told.len());
    let given_up = recording.named("loss")?;
    ensure!(
        given_up.len() == 1 && given_up[0].is("cause", "no_answer"),
        "the device was given up {} times",
        given_up.len()
    );
    Ok(())
}

/// `hmmctl watch`.
struct Watch {
    hmmctl: process::Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Watch {
    fn start() -> Result<Self> {
        let mut hmmctl = Command::new(Path::new(plan::PROGRAMS).join("hmmctl"))
            .args(["watch", "--json"])
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run hmmctl")?;
        let output = hmmctl.stdout.take().context("no output")?;
        Ok(Self {
            hmmctl,
            lines: BufReader::new(output).lines(),
        })
    }

    fn expect(&mut self, expected: &str) -> Result<()> {
        let line = self.lines.next().context("hmmctl has ended")??;
        let line: serde_json::Value = serde_json::from_str(&line)?;
        ensure!(line["device"] == expected, "{line}, and not {expected}");
        Ok(())
    }
}

fn watch() -> Result<()> {
    watch_return()?;
    let trial = Trial::with_short_wait()?;
    let _memory = trial.memory(100, 1)?;
    let mut watch = Watch::start()?;
    watch.expect("present")?;
    trial.lose()?;
    watch.expect("lost")?;
    watch.expect("gone")?;
    let status = watch.hmmctl.wait()?;
    ensure!(status.success(), "hmmctl ended with {status}");
    Ok(())
}

fn watch_return() -> Result<()> {
    let trial = Trial::new()?;
    let memory = trial.memory(100, 1)?;
    let mut watch = Watch::start()?;
    watch.expect("present")?;
    trial.lose()?;
    watch.expect("lost")?;
    trial.come_back()?;
    watch.expect("present")?;
    // It has a node open, which would keep the module.
    watch.hmmctl.kill()?;
    watch.hmmctl.wait()?;
    memory.check(1)
}
