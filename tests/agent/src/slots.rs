// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The machine's slots for cards.

use anyhow::{Context, Result};
use std::fs;
use std::path::PathBuf;
use std::thread;

/// Begins to take the card out of a slot. The driver of a device that does not answer any more takes its time, so this does
/// not wait.
pub(crate) fn power_off(number: usize) -> Result<()> {
    let power: PathBuf = ["/sys/bus/pci/slots", &number.to_string(), "power"]
        .iter()
        .collect();
    thread::Builder::new()
        .name("slot".to_owned())
        .spawn(move || {
            // A slot that is empty already refuses, and the host asks again if it is not.
            let _ = fs::write(power, "0");
        })
        .context("cannot start a thread for a slot")?;
    Ok(())
}
