// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest as a whole: whether it still lives, how long it may take, and what its end means.

use std::collections::BTreeSet;
use std::io;
use std::process::ExitStatus;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::event::Event;
use super::layout::{QEMU, SERIAL_LOG, log_of};
use super::qmp::Qmp;
use super::run_folder::{RunFolder, tail};
use super::{GuestError, GuestErrorKind, Result, infrastructure};

/// How long the end of QEMU may trail the end of its sockets.
const TRAILING: Duration = Duration::from_secs(3);

/// How long something may take.
#[derive(Debug, Clone)]
pub(crate) struct Limit {
    /// What is limited; `None` when a person has asked for its end.
    what: Option<String>,
    limit: Duration,
    end: Instant,
}

impl Limit {
    /// From now.
    pub(crate) fn new(what: &str, limit: Duration) -> Self {
        Self {
            what: Some(what.to_owned()),
            limit,
            end: Instant::now() + limit,
        }
    }

    /// From now, for something that a person has asked to end.
    pub(crate) fn interrupted(limit: Duration) -> Self {
        Self {
            what: None,
            limit,
            end: Instant::now() + limit,
        }
    }

    fn error(&self) -> GuestError {
        let limit = self.limit;
        match &self.what {
            Some(what) => GuestErrorKind::Timeout {
                what: what.clone(),
                limit,
            },
            None => GuestErrorKind::Interrupted,
        }
        .into()
    }
}

/// What is known about the guest as a whole.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Set when something ended that ends with QEMU: the end of QEMU should follow and says more.
    lost: Option<(String, Instant)>,
    /// The reason of QEMU's `SHUTDOWN`.
    shutdown: Option<String>,
    power_off_expected: bool,
    qemu_ended: bool,
    /// Processes whose end is in order: their devices were taken out.
    released: BTreeSet<String>,
}

impl Watch {
    pub(crate) fn expect_power_off(&mut self) {
        self.power_off_expected = true;
    }

    /// Whether the guest powered off and QEMU is gone.
    pub(crate) fn powered_off(&self) -> bool {
        self.qemu_ended
    }

    /// This process may end from now on: its device is being taken out.
    pub(crate) fn release(&mut self, process: &str) {
        self.released.insert(process.to_owned());
    }

    /// Whether this process may end: its device is being taken out, or the guest powers off.
    pub(crate) fn may_end(&self, process: &str) -> bool {
        self.power_off_expected || self.released.contains(process)
    }

    /// The next event, unless the limit or the end of everything comes first.
    pub(crate) fn receive(&self, events: &Receiver<Event>, limit: Option<&Limit>) -> Result<Event> {
        let lost = self.lost.as_ref().map(|(_, end)| *end);
        let end = [lost, limit.map(|limit| limit.end)]
            .into_iter()
            .flatten()
            .min();
        let event = match end {
            Some(end) => events.recv_timeout(end.saturating_duration_since(Instant::now())),
            None => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match (event, &self.lost, limit) {
            (Ok(event), ..) => Ok(event),
            (Err(_), Some((reason, _)), _) => Err(infrastructure(reason)),
            (Err(RecvTimeoutError::Timeout), None, Some(limit)) => Err(limit.error()),
            (Err(_), None, _) => Err(infrastructure("the guest's events ended")),
        }
    }

    pub(crate) fn control_lost(&mut self, reason: &str) {
        if !self.power_off_expected {
            self.wait_for_qemu(format!("the guest's init is gone: {reason}"));
        }
    }

    /// Something failed that fails when QEMU ends. Its end should follow and says more.
    pub(crate) fn wait_for_qemu(&mut self, reason: String) {
        self.lost.get_or_insert((reason, Instant::now() + TRAILING));
    }

    /// Looks at an event of QEMU.
    pub(crate) fn qmp(&mut self, event: &str, data: &Value, qmp: &mut Qmp) -> Result<()> {
        match event {
            "SHUTDOWN" => {
                let reason = data["reason"].as_str().unwrap_or("unknown");
                self.shutdown = Some(reason.to_owned());
            }
            "GUEST_PANICKED" => return Err(infrastructure("the guest's kernel panicked")),
            "STOP" => {
                let status = qmp
                    .execute("query-status", json!({}))
                    .map_err(|error| infrastructure(error.to_string()))?;
                let status = status["status"].as_str().unwrap_or("unknown");
                if !may_continue(status) {
                    return Err(infrastructure(format!(
                        "QEMU stopped the guest: {status}; with KVM this means that the host cannot run this kernel, \
                         and \"--accel tcg\" can"
                    )));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Looks at the end of a process.
    pub(crate) fn ended(
        &mut self,
        process: &str,
        status: &io::Result<ExitStatus>,
        folder: &RunFolder,
    ) -> Result<()> {
        let good = status.as_ref().is_ok_and(ExitStatus::success);
        if process == QEMU {
            let in_order = self.shutdown.as_deref() == Some("guest-shutdown");
            if self.power_off_expected && good && in_order {
                self.qemu_ended = true;
                return Ok(());
            }
        } else if self.may_end(process) {
            // Its peer is gone or going.
            return Ok(());
        }
        let how = match status {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        let with_log = |what: String, log: &str| {
            format!(
                "{what}; the end of its log:\n{}",
                tail(&folder.file(log), 15)
            )
        };
        if process == QEMU {
            let text = match (panic_message(folder), self.shutdown.as_deref()) {
                (Some(panic), _) if is_end_of_init(&panic) => {
                    let why = match lacks_pid_namespaces(folder) {
                        true => {
                            "; its kernel has no PID namespaces (CONFIG_PID_NS), so a command that signals every process \
                             ends the agent, too"
                        }
                        false => "",
                    };
                    let what = format!("the guest's agent ended, and the guest with it{why}");
                    with_log(what, SERIAL_LOG)
                }
                (Some(panic), _) => format!("the guest's kernel panicked:\n{panic}"),
                (None, Some(reason)) => {
                    with_log(format!("the guest ended unasked ({reason})"), SERIAL_LOG)
                }
                (None, None) => with_log(format!("{QEMU} ended unasked ({how})"), &log_of(QEMU)),
            };
            return Err(infrastructure(text));
        }
        let text = with_log(format!("{process} ended unasked ({how})"), &log_of(process));
        if good {
            // It ends like this when QEMU has left it.
            self.wait_for_qemu(text);
            return Ok(());
        }
        Err(infrastructure(text))
    }
}

/// What the console says from the first sign of a fatal error on.
fn panic_message(folder: &RunFolder) -> Option<String> {
    const SIGNS: [&str; 4] = ["Oops:", "BUG:", "kernel BUG at", "Kernel panic"];
    const LINES: usize = 40;
    let text = std::fs::read(folder.file(SERIAL_LOG)).ok()?;
    let text = String::from_utf8_lossy(&text).replace('\r', "");
    if !text.contains("Kernel panic") {
        return None;
    }
    let lines: Vec<&str> = text.lines().collect();
    let first = lines
        .iter()
        .position(|line| SIGNS.iter().any(|sign| line.contains(sign)))?;
    let end = lines.len().min(first + LINES);
    Some(lines[first..end].join("\n"))
}

/// Whether the agent said that commands have no PID namespace of their own.
fn lacks_pid_namespaces(folder: &RunFolder) -> bool {
    std::fs::read(folder.file(SERIAL_LOG))
        .is_ok_and(|log| String::from_utf8_lossy(&log).contains("no PID namespaces"))
}

/// Whether the kernel stopped only because process 1, the agent, ended: no fault of the kernel precedes the panic.
fn is_end_of_init(panic: &str) -> bool {
    let first = panic.lines().next().unwrap_or_default();
    first.contains("Kernel panic") && first.contains("Attempted to kill init")
}

/// Whether a guest that QEMU stopped may go on: it does already, it is powering off, or someone stopped it at the
/// monitor (`stop`) and may continue it (`cont`). Time limits go on meanwhile.
fn may_continue(status: &str) -> bool {
    matches!(status, "running" | "shutdown" | "paused")
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::sync::mpsc;

    use super::*;

    fn folder() -> (tempfile::TempDir, RunFolder) {
        let runs = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(runs.path(), "test").unwrap();
        (runs, folder)
    }

    fn ended_well() -> io::Result<ExitStatus> {
        Ok(ExitStatus::from_raw(0))
    }

    #[test]
    fn a_limit_ends_a_wait() {
        let (_sender, events) = mpsc::channel();
        let limit = Limit::new("the boot", Duration::ZERO);
        let error = Watch::default().receive(&events, Some(&limit)).unwrap_err();
        assert_eq!(error.exit_code(), 124);
        assert!(error.to_string().contains("the boot"));
    }

    #[test]
    fn a_panic_is_shown_from_its_first_sign_on() {
        let (_runs, folder) = folder();
        std::fs::write(
            folder.file(SERIAL_LOG),
            "fine\r\nBUG: bad thing\r\nstack\r\nKernel panic - not syncing\r\n",
        )
        .unwrap();
        let mut watch = Watch {
            shutdown: Some("guest-reset".to_owned()),
            ..Watch::default()
        };
        let error = watch.ended(QEMU, &ended_well(), &folder).unwrap_err();
        assert_eq!(error.exit_code(), 125);
        let text = error.to_string();
        assert!(
            text.contains("BUG: bad thing") && !text.contains("fine"),
            "{text}"
        );
    }

    #[test]
    fn the_end_of_the_agent_is_not_a_kernel_panic() {
        let end = |log: &str| {
            let (_runs, folder) = folder();
            std::fs::write(folder.file(SERIAL_LOG), log).unwrap();
            let mut watch = Watch::default();
            let error = watch.ended(QEMU, &ended_well(), &folder).unwrap_err();
            error.to_string()
        };
        let agent = "hmm-agent: the process that serves the host ended: signal 14\n\
                     Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100\n";
        let text = end(agent);
        assert!(text.contains("the guest's agent ended"), "{text}");
        assert!(!text.contains("CONFIG_PID_NS"), "{text}");
        let text = end(&format!(
            "hmm-agent: no PID namespaces: this kernel was built without CONFIG_PID_NS\n{agent}"
        ));
        assert!(text.contains("(CONFIG_PID_NS)"), "{text}");
        assert!(text.contains("signal 14"), "{text}");
        assert!(!text.contains("kernel panicked"), "{text}");
        // A fault of the kernel that takes process 1 with it is still the kernel's.
        let text = end(&format!("Oops: general protection fault\n{agent}"));
        assert!(text.contains("kernel panicked"), "{text}");
    }

    #[test]
    fn a_process_that_ends_unasked_shows_its_log() {
        let (_runs, folder) = folder();
        std::fs::write(folder.file(&log_of("device0")), "cannot map\n").unwrap();
        let error = Watch::default()
            .ended("device0", &Ok(ExitStatus::from_raw(11)), &folder)
            .unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("device0") && text.contains("cannot map") && text.contains("signal"),
            "{text}"
        );
    }

    #[test]
    fn a_process_that_ends_well_waits_for_the_better_reason() {
        let (_runs, folder) = folder();
        let mut watch = Watch::default();
        watch.ended("device0", &ended_well(), &folder).unwrap();
        std::fs::write(folder.file(SERIAL_LOG), "Kernel panic - not syncing\n").unwrap();
        let error = watch.ended(QEMU, &ended_well(), &folder).unwrap_err();
        assert!(error.to_string().contains("panicked"), "{error}");
        let (sender, events) = mpsc::channel();
        drop::<mpsc::Sender<Event>>(sender);
        let error = watch.receive(&events, None).unwrap_err();
        assert!(
            error.to_string().contains("device0 ended unasked"),
            "{error}"
        );
    }

    #[test]
    fn powering_off_takes_the_right_end_only() {
        let (_runs, folder) = folder();
        let mut watch = Watch::default();
        watch.expect_power_off();
        watch.shutdown = Some("guest-reset".to_owned());
        assert!(watch.ended(QEMU, &ended_well(), &folder).is_err());
        watch.shutdown = Some("guest-shutdown".to_owned());
        watch.ended("device0", &ended_well(), &folder).unwrap();
        assert!(!watch.powered_off());
        watch.ended(QEMU, &ended_well(), &folder).unwrap();
        assert!(watch.powered_off());
    }

    #[test]
    fn a_lost_init_waits_for_the_better_reason() {
        let (sender, events) = mpsc::channel();
        let mut watch = Watch::default();
        watch.control_lost("end of stream");
        sender
            .send(Event::Ended {
                process: QEMU.to_owned(),
                status: ended_well(),
            })
            .unwrap();
        assert!(matches!(
            watch.receive(&events, None),
            Ok(Event::Ended { .. })
        ));
        drop(sender);
        let error = watch.receive(&events, None).unwrap_err();
        assert!(error.to_string().contains("end of stream"), "{error}");
    }

    #[test]
    fn a_guest_that_is_paused_at_the_monitor_has_not_failed() {
        assert!(may_continue("paused"));
        for status in ["internal-error", "io-error", "guest-panicked", "unknown"] {
            assert!(!may_continue(status), "{status}");
        }
    }
}
