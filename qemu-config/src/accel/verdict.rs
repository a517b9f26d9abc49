// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whether a guest boots with KVM: tried once, then remembered.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{AcceleratorChoice, boot_id};
use crate::guest::{BootSpec, Guest};
use crate::machine::Machine;
use crate::{Artifacts, Launcher};

/// A real boot with KVM takes a few seconds.
const LIMIT: Duration = Duration::from_secs(20);

/// Why no guest boots with KVM, for people. It is remembered from one run to the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(transparent)]
#[error("{0}")]
pub(super) struct NoBoot(String);

impl NoBoot {
    pub(super) fn new(reason: impl ToString) -> Self {
        Self(reason.to_string())
    }
}

/// What was found, and for what.
#[derive(Debug, Serialize, Deserialize)]
struct Verdict {
    key: String,
    /// Why KVM cannot be used; `None` when it can.
    against: Option<NoBoot>,
}

/// The remembered verdict, or a new one.
pub(super) fn remembered(artifacts: &Artifacts) -> Result<(), NoBoot> {
    let path = artifacts.runs.join("kvm-verdict.json");
    let key = key(
        &artifacts.environment.qemu,
        &artifacts.environment.kernel.image,
    )
    .map_err(|error| NoBoot::new(format_args!("what would be booted cannot be read: {error}")))?;
    remembered_at(&path, key, || boots(artifacts))
}

fn remembered_at(
    path: &Path,
    key: String,
    boots: impl FnOnce() -> Result<(), NoBoot>,
) -> Result<(), NoBoot> {
    let known = fs::read(path)
        .ok()
        .and_then(|text| serde_json::from_slice::<Verdict>(&text).ok())
        .filter(|verdict| verdict.key == key);
    let verdict = known.unwrap_or_else(|| {
        let verdict = Verdict {
            key,
            against: boots().err(),
        };
        // A verdict that cannot be kept is found again the next time.
        if let Ok(text) = serde_json::to_vec_pretty(&verdict) {
            let _ = fs::write(path, text);
        }
        verdict
    });
    verdict.against.map_or(Ok(()), Err)
}

/// Boots a guest without device and driver.
fn boots(artifacts: &Artifacts) -> Result<(), NoBoot> {
    let machine = Machine::load("q35").map_err(NoBoot::new)?;
    let spec = BootSpec {
        accelerator: AcceleratorChoice::Kvm,
        devices: Vec::new(),
        load_driver: false,
        boot_limit: LIMIT,
        ..BootSpec::new("accel-probe", machine)
    };
    Guest::boot(artifacts, &spec)
        .and_then(Guest::power_off)
        .map(drop)
        .map_err(|error| NoBoot::new(error.kind()))
}

/// Names the host's boot, QEMU and the kernel.
fn key(qemu: &Launcher, kernel: &Path) -> io::Result<String> {
    let mut hash = Sha256::new();
    hash.update(boot_id());
    hash.update(format!("{qemu:?}"));
    let mut files = vec![qemu.program.as_path(), kernel];
    // With a loader in front, QEMU itself is one of the arguments.
    files.extend(
        qemu.args
            .iter()
            .map(Path::new)
            .filter(|path| path.is_file()),
    );
    for file in files {
        io::copy(&mut File::open(file)?, &mut HashWriter(&mut hash))?;
    }
    let mut text = String::new();
    for byte in hash.finalize() {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}

struct HashWriter<'a>(&'a mut Sha256);

impl io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_is_found_once_for_each_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("verdict");
        let again = || panic!("booted again");
        let stopped = NoBoot::new("stopped");
        let no = || Err(NoBoot::new("stopped"));
        assert_eq!(
            remembered_at(&path, "a".to_owned(), no),
            Err(stopped.clone())
        );
        assert_eq!(
            remembered_at(&path, "a".to_owned(), again),
            Err(stopped.clone())
        );
        assert_eq!(remembered_at(&path, "b".to_owned(), || Ok(())), Ok(()));
        assert_eq!(remembered_at(&path, "b".to_owned(), again), Ok(()));
    }

    #[test]
    fn a_spoilt_file_is_as_none() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "{").unwrap();
        assert_eq!(
            remembered_at(file.path(), "a".to_owned(), || Ok(())),
            Ok(())
        );
    }
}
