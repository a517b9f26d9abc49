// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What must be so after every case: nothing of it is left on the device, and the driver is there.

use super::support::{driver, nodes};
use hmm_uapi::client::Device;
use std::fmt;
use std::time::{Duration, Instant};

/// How long the last pages may take to be freed after the last process is gone.
const FREE_LIMIT: Duration = Duration::from_secs(10);

/// What a case left behind.
#[derive(Debug)]
pub(super) enum Leftover {
    /// The case has failed, and the next one can run.
    Mended(String),
    /// Nothing can run any more.
    Fatal(String),
}

impl fmt::Display for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mended(text) | Self::Fatal(text) => f.write_str(text),
        }
    }
}

/// Checks that nothing of a case is left, now that all its processes are gone. A guest that was booted without the
/// driver has nothing that could be left.
pub(super) fn check() -> Result<(), Leftover> {
    if !driver::is_planned() {
        return Ok(());
    }
    if !nodes::exist() {
        return Err(match driver::restore() {
            Ok(()) => Leftover::Mended(
                "the case left the system without the driver; it is loaded again".to_owned(),
            ),
            Err(error) => Leftover::Fatal(format!(
                "the driver is gone and does not come back: {error:#}"
            )),
        });
    }
    for node in nodes::all() {
        let device = Device::open(&node).map_err(|error| Leftover::Fatal(error.to_string()))?;
        let deadline = Instant::now() + FREE_LIMIT;
        while let Some(bytes) = resident(&device)? {
            if Instant::now() > deadline {
                drop(device);
                let text = format!(
                    "{}: {bytes} bytes are still resident after all processes of the case are gone",
                    node.display()
                );
                return Err(match driver::restore() {
                    Ok(()) => Leftover::Mended(text),
                    Err(error) => Leftover::Fatal(format!(
                        "{text}, and the driver cannot be loaded anew: {error:#}"
                    )),
                });
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    Ok(())
}

/// Device memory in use, if any is.
fn resident(device: &Device) -> Result<Option<u64>, Leftover> {
    match device.stats() {
        Ok(stats) => Ok(Some(stats.resident_bytes).filter(|&bytes| bytes > 0)),
        Err(error) => Err(Leftover::Fatal(error.to_string())),
    }
}
