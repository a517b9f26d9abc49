// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The interrupt line of a PCI device.

use anyhow::{Context, Result};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Where the command register is in the configuration space (PCI 3.0, 6.1).
const COMMAND: u64 = 4;
/// "Interrupt Disable": the device does not assert INTx (PCI 3.0, 6.2.2).
const INTERRUPT_DISABLE: u16 = 1 << 10;

/// The interrupt line of one device.
#[derive(Debug)]
pub(in crate::cases) struct Intx(File);

/// While it exists, the device has no interrupt.
#[derive(Debug)]
pub(in crate::cases) struct Masked<'a>(&'a Intx);

impl Intx {
    /// The line of the PCI device behind a device of the virtio bus.
    pub(in crate::cases) fn of(virtio_device: &str) -> Result<Self> {
        let path = Path::new("/sys/bus/virtio/devices").join(virtio_device);
        // The entry is a link into the folder of the PCI device.
        let path = (path.canonicalize()?.parent())
            .with_context(|| format!("{virtio_device} has no parent"))?
            .join("config");
        let file = (OpenOptions::new().read(true).write(true).open(&path))
            .with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Self(file))
    }

    /// Masks the line.
    pub(in crate::cases) fn mask(&self) -> Result<Masked<'_>> {
        self.change(|command| command | INTERRUPT_DISABLE)?;
        Ok(Masked(self))
    }

    fn change(&self, change: impl FnOnce(u16) -> u16) -> Result<()> {
        let mut bytes = [0; 2];
        self.0.read_exact_at(&mut bytes, COMMAND)?;
        let command = change(u16::from_le_bytes(bytes));
        (self.0.write_all_at(&command.to_le_bytes(), COMMAND))
            .context("cannot write the command register")
    }
}

impl Drop for Masked<'_> {
    fn drop(&mut self) {
        // A device that stays without interrupts fails the next case, which needs them.
        let _ = self.0.change(|command| command & !INTERRUPT_DISABLE);
    }
}
