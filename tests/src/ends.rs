// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Guests and devices that end in the middle of something, each in a boot of its own.

use crate::splat::Rules;
use crate::suite::{self, Plan, Suite};
use anyhow::{Context, ensure};

use hmm_vm::Artifacts;
use hmm_vm::guest::{BootSpec, Command, Depth, Guest, Load, PROGRAMS, WOKE_WELL};
use serde_json::json;
use std::fs;
use std::time::Duration;

/// How often a guest is powered off in the middle of moves: the environment variable, and the number without it when the depth is
/// short.
const CYCLES_VARIABLE: &str = "HMM_POWER_CYCLES";
const CYCLES: u32 = 3;
/// How long a guest may take to power off, its driver bringing all memory home.
const POWER_OFF_LIMIT: Duration = Duration::from_secs(300);

/// A test of this kind; its name is also that of the guest's case.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// The name.
    pub name: &'static str,
    /// Whether a debug kernel can take it. Lockdep finds that the kernel's own driver of PCI Express slots takes two
    /// locks in both orders whenever a device is pulled (pciehp_unconfigure_device(): the controller's reset_lock and
    /// pci_rescan_remove_lock), and then looks for nothing else any more.
    pub on_debug: bool,
    /// Boots one guest or several.
    ///
    /// # Errors
    /// When something was lost, hung, or made the kernel complain.
    pub run: fn(&End, &Artifacts, &BootSpec, &Rules, Depth) -> anyhow::Result<()>,
}

const ENDS: [End; 4] = [
    End {
        name: "ends/power-off-while-moving",
        on_debug: true,
        run: power_off,
    },
    End {
        name: "ends/reboot-while-moving",
        on_debug: true,
        run: reboot,
    },
    End {
        name: "ends/unplug-while-moving",
        on_debug: false,
        run: one_case,
    },
    End {
        name: "ends/sleep-while-moving",
        on_debug: true,
        run: sleep,
    },
];

/// All of them.
pub fn all() -> impl Iterator<Item = End> {
    ENDS.into_iter()
}

fn cycles(depth: Depth) -> anyhow::Result<u32> {
    match std::env::var(CYCLES_VARIABLE) {
        Ok(text) => text
            .parse()
            .with_context(|| format!("{CYCLES_VARIABLE}: expected a number, found {text:?}")),
        Err(_) => Ok(depth.rounds(CYCLES)),
    }
}

fn power_off(
    end: &End,
    artifacts: &Artifacts,
    spec: &BootSpec,
    rules: &Rules,
    depth: Depth,
) -> anyhow::Result<()> {
    let cycles = cycles(depth)?;
    ensure!(
        cycles > 0,
        "{CYCLES_VARIABLE} is 0: nothing would be tested"
    );
    for cycle in 1..=cycles {
        until_powered_off(end, artifacts, spec, rules, "Linux version")
            .with_context(|| format!("cycle {cycle} of {cycles}"))?;
    }
    Ok(())
}

/// The system that starts again finds a device that works, with none of the contents of before.
fn reboot(
    end: &End,
    artifacts: &Artifacts,
    spec: &BootSpec,
    rules: &Rules,
    _: Depth,
) -> anyhow::Result<()> {
    let mut guest = Guest::boot(artifacts, spec)?;
    guest.keep_folder();
    let folder = guest.folder().to_owned();
    let before = generation(&mut guest)?;
    guest.case_that_reboots(end.name, POWER_OFF_LIMIT)?;
    let mut command = Command::new([
        &format!("{PROGRAMS}/hmmctl"),
        "run",
        "--quiet",
        "--policy",
        "churn",
        "--",
        "/init",
        "--case",
        "workload/memory",
    ]);
    command.limit = Some(POWER_OFF_LIMIT);
    let output = guest.output(&command)?;
    ensure!(
        output.end.shell_code() == 0,
        "the device does not work after a reboot: {output:?}; logs: {}",
        folder.display()
    );
    let after = generation(&mut guest)?;
    ensure!(
        after != before,
        "the contents of before the reboot are there; logs: {}",
        folder.display()
    );
    let log = guest.power_off()?.serial_log()?;
    let splats = rules.scan(&log);
    ensure!(splats.is_empty(), "{splats:#?}; logs: {}", folder.display());
    let boots = log.matches("Linux version").count();
    ensure!(
        boots == 2,
        "the kernel's log has {boots} boots; logs: {}",
        folder.display()
    );
    // Logs of a boot that went well are of no use.
    let _ = fs::remove_dir_all(&folder);
    Ok(())
}

/// Which contents the first device has.
fn generation(guest: &mut Guest) -> anyhow::Result<u64> {
    let info = guest.device_control(0, &json!({"command": "info"}))?;
    (info["generation"].as_u64()).with_context(|| format!("no generation in {info}"))
}

/// The guest has said what it found in the kernel's log.
fn sleep(
    end: &End,
    artifacts: &Artifacts,
    spec: &BootSpec,
    rules: &Rules,
    _: Depth,
) -> anyhow::Result<()> {
    until_powered_off(end, artifacts, spec, rules, WOKE_WELL)
}

/// Boots a guest for one case that powers it off. The kernel must not complain, and its log must have `text`.
fn until_powered_off(
    end: &End,
    artifacts: &Artifacts,
    spec: &BootSpec,
    rules: &Rules,
    text: &str,
) -> anyhow::Result<()> {
    let guest = Guest::boot(artifacts, spec)?;
    guest.keep_folder();
    let folder = guest.folder().to_owned();
    let log = guest
        .case_that_powers_off(end.name, POWER_OFF_LIMIT)?
        .serial_log()?;
    let splats = rules.scan(&log);
    ensure!(splats.is_empty(), "{splats:#?}; logs: {}", folder.display());
    ensure!(
        log.contains(text),
        "the kernel's log has no {text:?}, but:\n{}\nlogs: {}",
        lines_of_agent(&log),
        folder.display()
    );
    // Logs of a boot that went well are of no use.
    let _ = fs::remove_dir_all(&folder);
    Ok(())
}

fn lines_of_agent(log: &str) -> String {
    let lines = log.lines().filter(|line| line.contains("hmm-agent: "));
    lines.collect::<Vec<_>>().join("\n")
}

fn one_case(
    end: &End,
    artifacts: &Artifacts,
    spec: &BootSpec,
    rules: &Rules,
    _: Depth,
) -> anyhow::Result<()> {
    let suite = Suite::start(Plan {
        artifacts: artifacts.clone(),
        spec: spec.clone(),
        rules: rules.clone(),
        cases: vec![end.name.to_owned()],
        load: Load::default(),
        limit: suite::LIMIT,
        recording: None,
    });
    suite.expect_all_passed(&[end.name])
}
