// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How much of device memory is resident, and how much of that is mapped by huge pages.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use procfs_core::{FromBufRead, process::MemoryMaps};
use serde::Serialize;

use super::mapping::Mapping;

/// What backs device memory.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct BackingReport {
    /// `memfd`, `hugetlb` or `file`.
    pub kind: &'static str,
    /// Whether all pages were touched.
    pub prefaulted: bool,
    /// Bytes that are mapped; absent where the kernel does not tell.
    pub resident_bytes: Option<u64>,
    /// Bytes of those that huge pages map.
    pub huge_bytes: Option<u64>,
}

/// How long a measurement is good for. To make one, the kernel walks the page tables of all mappings, also of a guest's
/// memory, so clients of the control socket must not have it done at will.
const VALID: Duration = Duration::from_secs(1);

/// The kernel's account of this process's mappings, opened before a sandbox may forbid it.
#[derive(Debug)]
pub(super) struct Residency {
    account: Option<File>,
    last: Mutex<Option<(Instant, Measured)>>,
}

/// Resident bytes and those of huge pages.
type Measured = Option<(u64, u64)>;

impl Residency {
    pub(super) fn new() -> Self {
        Self {
            account: File::open("/proc/self/smaps").ok(),
            last: Mutex::new(None),
        }
    }

    /// Resident bytes and huge bytes of `mapping`, now or a moment ago.
    pub(super) fn measure(&self, mapping: &Mapping) -> Measured {
        let mut last = self.last.lock();
        if let Some((at, measured)) = *last
            && at.elapsed() < VALID
        {
            return measured;
        }
        let measured = self.measure_now(mapping);
        *last = Some((Instant::now(), measured));
        measured
    }

    fn measure_now(&self, mapping: &Mapping) -> Measured {
        let text = read_all(self.account.as_ref()?)?;
        let account = MemoryMaps::from_buf_read(text.as_slice()).ok()?;
        let (start, len) = mapping.range();
        let (start, end) = (start as u64, start as u64 + len as u64);
        let (mut resident, mut huge) = (0, 0);
        // The kernel may have divided the mapping, but not joined it with another file's.
        for part in account
            .iter()
            .filter(|part| part.address.0 >= start && part.address.1 <= end)
        {
            let bytes = |name: &str| part.extension.map.get(name).copied().unwrap_or(0);
            // Reserved huge pages are not part of the resident set.
            let reserved = bytes("Shared_Hugetlb") + bytes("Private_Hugetlb");
            resident += bytes("Rss") + reserved;
            huge += bytes("ShmemPmdMapped") + bytes("FilePmdMapped") + reserved;
        }
        Some((resident, huge))
    }
}

fn read_all(file: &File) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 16 << 10];
    loop {
        match file.read_at(&mut buffer, bytes.len() as u64).ok()? {
            0 => return Some(bytes),
            count => bytes.extend_from_slice(&buffer[..count]),
        }
    }
}
