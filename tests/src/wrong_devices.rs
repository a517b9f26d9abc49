// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Devices whose configuration space is nonsense: the driver refuses each, says why, and serves the one that is right.

use crate::splat::Rules;
use anyhow::{Context, ensure};
use hmm_vm::Artifacts;
use hmm_vm::accel::AcceleratorChoice;
use hmm_vm::guest::{BootSpec, Collected, DeviceSpec, Guest, Load};
use hmm_vm::machine::Machine;
use std::fs;
use std::time::Duration;

/// A case that the device which is right must still pass.
const HEALTH_CASE: &str = "=migrate/roundtrip-anon-4k";

/// What the driver says of a device that it serves.
const SERVED: &str = "of device memory at /dev/";

/// A device that publishes nonsense.
#[derive(Clone, Copy, Debug)]
pub struct WrongDevice {
    /// The test's name.
    pub name: &'static str,
    field: &'static str,
    value: u64,
    /// What the driver says.
    reason: &'static str,
}

impl WrongDevice {
    const fn new(
        name: &'static str,
        field: &'static str,
        value: u64,
        reason: &'static str,
    ) -> Self {
        Self {
            name,
            field,
            value,
            reason,
        }
    }

    /// Looks for the reason in the kernel's log.
    ///
    /// # Errors
    /// When it is not there.
    pub fn check(&self, log: &str) -> Result<(), String> {
        if log.lines().any(|line| self.is_refused_by(line)) {
            return Ok(());
        }
        Err(format!(
            "{} = {:#x}: the driver did not say '{}'",
            self.field, self.value, self.reason
        ))
    }

    fn is_refused_by(&self, line: &str) -> bool {
        line.contains("virtio_hmm") && line.contains(self.reason)
    }

    fn fault(&self) -> String {
        serde_json::json!({ "action": "config", "field": self.field, "value": self.value })
            .to_string()
    }
}

const DEVICES: [WrongDevice; 13] = [
    WrongDevice::new("config/magic", "magic", 0x1234, "magic"),
    WrongDevice::new(
        "config/version",
        "version_major",
        77,
        "unknown major version",
    ),
    WrongDevice::new("config/page-size", "page_bytes", 65536, "page size"),
    WrongDevice::new("config/memory-zero", "memory_bytes", 0, "memory size"),
    WrongDevice::new(
        "config/memory-odd",
        "memory_bytes",
        (64 << 20) + 4096,
        "memory size",
    ),
    WrongDevice::new(
        "config/memory-beyond",
        "memory_bytes",
        1 << 60,
        "memory size",
    ),
    // 32 TiB: more than the guest can keep records of.
    WrongDevice::new(
        "config/memory-unbacked",
        "memory_bytes",
        1 << 45,
        "no struct pages",
    ),
    WrongDevice::new(
        "config/batch-entries",
        "max_batch_entries",
        3,
        "a batch must hold 512",
    ),
    WrongDevice::new(
        "config/urgent-entries",
        "max_urgent_entries",
        0,
        "an urgent batch must hold",
    ),
    WrongDevice::new(
        "config/entry-bytes",
        "max_entry_bytes",
        4096,
        "an entry must hold",
    ),
    WrongDevice::new(
        "config/batch-bytes",
        "max_batch_bytes",
        0,
        "a batch must hold 2 MiB",
    ),
    WrongDevice::new("config/bulk-queues", "bulk_queues", 1000, "bulk queues"),
    WrongDevice::new("config/health", "health", 1, "not healthy"),
];

/// All such devices.
pub fn all() -> impl Iterator<Item = WrongDevice> {
    DEVICES.into_iter()
}

/// Boots a guest with one device that is right and these, and returns the kernel's log of the module's first load.
///
/// # Errors
/// When the guest does not come up with exactly one node, when that device does not work, or when there is a splat.
pub fn boot(
    artifacts: &Artifacts,
    accelerator: AcceleratorChoice,
    rules: &Rules,
    devices: &[WrongDevice],
) -> Result<String, String> {
    try_boot(artifacts, accelerator, rules, devices).map_err(|error| format!("{error:#}"))
}

fn try_boot(
    artifacts: &Artifacts,
    accelerator: AcceleratorChoice,
    rules: &Rules,
    devices: &[WrongDevice],
) -> anyhow::Result<String> {
    let mut spec = BootSpec::new("wrong-devices", Machine::load("q35")?);
    spec.accelerator = accelerator;
    spec.memory = "2G".parse()?;
    let right = DeviceSpec {
        memory: "64M".parse()?,
        ..DeviceSpec::new(&spec.machine)
    };
    // The device that is right comes last, so that it has all refusals before it.
    spec.devices.clear();
    let scripts = tempfile::tempdir().context("no folder for the fault scripts")?;
    for (index, device) in devices.iter().enumerate() {
        let script = scripts.path().join(format!("{index}.jsonl"));
        fs::write(&script, device.fault()).context("cannot write a fault script")?;
        let mut wrong = right.clone();
        wrong.args = vec!["--fault-script".into(), script.into()];
        spec.devices.push(wrong);
    }
    spec.devices.push(right);
    spec.device_nodes = Some(1);

    let guest = Guest::boot(artifacts, &spec)?;
    guest.keep_folder();
    let folder = guest.folder().to_owned();
    let result = examine(guest, rules).and_then(|log| {
        count_refusals(&log, devices)?;
        Ok(log)
    });
    if result.is_ok() {
        // Logs of a boot that went well are of no use.
        let _ = fs::remove_dir_all(&folder);
    }
    result.with_context(|| format!("logs: {}", folder.display()))
}

fn examine(mut guest: Guest, rules: &Rules) -> anyhow::Result<String> {
    let nodes = guest.hello().devices.clone();
    ensure!(
        nodes.len() == 1,
        "one device is right, and the nodes are {nodes:?}"
    );
    let ktap = Collected::default();
    let filter = [HEALTH_CASE.to_owned()];
    guest.cases(
        &filter,
        Load::default(),
        Box::new(ktap.clone()),
        Some(Duration::from_secs(300)),
    )?;
    let ktap = ktap.text();
    ensure!(
        ktap.contains("\nok 1 "),
        "the device that is right does not work:\n{ktap}"
    );
    let log = guest.power_off()?.serial_log()?;
    let splats = rules.scan(&log);
    ensure!(
        splats.is_empty(),
        "the kernel's log has splats: {splats:#?}"
    );
    first_load(&log).map(str::to_owned)
}

/// What the kernel said until it served the device that is right, which comes last. The search for leaks loads the
/// module once more, after the case has cleared the faults of the first device.
fn first_load(log: &str) -> anyhow::Result<&str> {
    let served = log
        .find(SERVED)
        .context("the kernel's log does not name the device that is right")?;
    Ok(&log[..served])
}

/// Checks that every device was refused by itself: several have the same reason.
fn count_refusals(log: &str, devices: &[WrongDevice]) -> anyhow::Result<()> {
    for device in devices {
        let refused = log
            .lines()
            .filter(|line| device.is_refused_by(line))
            .count();
        let wrong = devices
            .iter()
            .filter(|other| other.reason == device.reason)
            .count();
        ensure!(
            refused == wrong,
            "{wrong} devices are wrong in '{}', and {refused} were refused",
            device.reason
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{WrongDevice, all};

    #[test]
    fn only_a_line_of_the_driver_counts() {
        let device = WrongDevice::new("config/magic", "magic", 1, "magic is not that");
        assert!(
            device
                .check("[ 1.0] virtio_hmm virtio3: configuration space: magic is not that of")
                .is_ok()
        );
        assert!(
            device
                .check("[ 1.0] other virtio3: magic is not that of")
                .is_err()
        );
        assert!(device.check("").is_err());
    }

    #[test]
    fn names_and_reasons_are_there() {
        for device in all() {
            assert!(device.name.starts_with("config/"));
            assert!(!device.reason.is_empty(), "{}", device.name);
        }
    }
}
