// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Shapes of machines: data files, rendered to a QEMU command line.

mod render;

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

pub(crate) use render::slot;
pub use render::{DevicePart, Endpoint, Parts};

use crate::accel::Accelerator;
use crate::size::ByteSize;
use crate::{Result, SetupError};

/// The shapes that come with the project, by name.
const BUILT_IN: [(&str, &str); 1] = [("q35", include_str!("../machines/q35.toml"))];

/// A shape of machine: a file of `machines/`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// What it is for.
    pub description: String,
    /// QEMU's name for the board.
    pub machine: String,
    /// How many processors it has unless told otherwise.
    pub cpus: u32,
    /// How much memory it has unless told otherwise.
    pub memory: ByteSize,
    /// QEMU options that need nothing filled in.
    pub options: Vec<String>,
    /// QEMU's `-accel` for each accelerator.
    pub accelerator: PerAccelerator,
    /// QEMU's `-cpu` for each accelerator.
    pub cpu: PerAccelerator,
    /// What the kernel is told.
    pub kernel: KernelPart,
    /// The device.
    pub device: DeviceShape,
    /// The device that shares the host's root folder.
    pub share: SharePart,
}

/// A text that depends on the accelerator.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PerAccelerator {
    /// With KVM.
    pub kvm: String,
    /// With emulation.
    pub tcg: String,
}

impl PerAccelerator {
    fn get(&self, accelerator: Accelerator) -> &str {
        match accelerator {
            Accelerator::Kvm => &self.kvm,
            Accelerator::Tcg => &self.tcg,
        }
    }
}

/// What the kernel is told.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelPart {
    /// The words of its command line.
    pub append: Vec<String>,
}

/// The front end of a device process.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceShape {
    /// QEMU's name for it.
    pub driver: String,
    /// Private memory unless told otherwise.
    pub memory: ByteSize,
    /// Bulk queues unless told otherwise.
    pub bulk_queues: u32,
    /// Job queues unless told otherwise.
    pub job_queues: u32,
    /// Entries of each queue unless told otherwise.
    pub queue_size: u32,
    /// Further properties.
    pub properties: BTreeMap<String, toml::Value>,
}

/// The front end of the daemon that shares a folder.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SharePart {
    /// QEMU's name for it.
    pub driver: String,
}

impl Machine {
    /// Reads a shape: one of the project's own by its name, or a file.
    ///
    /// # Errors
    /// When there is neither, or when it is not a shape.
    pub fn load(name: &str) -> Result<Self> {
        let path = Path::new(name);
        if let Some((_, text)) = BUILT_IN.iter().find(|(own, _)| *own == name) {
            return Self::parse(path, text);
        }
        let text = std::fs::read_to_string(path).map_err(|error| SetupError::Invalid {
            path: path.to_owned(),
            reason: format!(
                "is neither a machine of the project ({}) nor a file that can be read: {error}",
                BUILT_IN.map(|(own, _)| own).join(", ")
            ),
        })?;
        Self::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Self> {
        toml::from_str(text).map_err(|error| SetupError::Invalid {
            path: path.to_owned(),
            reason: format!("is not the shape of a machine: {error}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_project_s_own_machines_can_be_read() {
        for (name, _) in BUILT_IN {
            Machine::load(name).unwrap();
        }
    }

    #[test]
    fn another_name_says_what_there_is() {
        let error = Machine::load("pdp11").unwrap_err().to_string();
        assert!(error.contains("pdp11") && error.contains("q35"), "{error}");
    }
}
