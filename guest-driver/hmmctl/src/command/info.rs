// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `hmmctl info`.

use crate::cli;
use crate::output::{self, bytes};
use hmm_uapi::client::Device;
use serde::Serialize;
use std::path::Path;

#[derive(Serialize)]
struct Reply {
    version: u32,
    features: u64,
    memory_bytes: u64,
    resident_bytes: u64,
    page_bytes: u32,
    block_bytes: u32,
    max_batch_pages: u32,
    bulk_queues: u32,
    generation: u64,
    uuid: String,
}

/// Shows what the device is.
pub(crate) fn info(node: &Path, arguments: &cli::Info) -> anyhow::Result<()> {
    let info = Device::open(node)?.info()?;
    let reply = Reply {
        version: info.version,
        features: info.features,
        memory_bytes: info.memory_bytes,
        resident_bytes: info.resident_bytes,
        page_bytes: info.page_bytes,
        block_bytes: info.block_bytes,
        max_batch_pages: info.max_batch_pages,
        bulk_queues: info.bulk_queues,
        generation: info.generation,
        uuid: uuid(&info.uuid),
    };
    output::print(arguments.json, &reply, |out| {
        writeln!(out, "interface version  {}", reply.version)?;
        writeln!(out, "features           {:#x}", reply.features)?;
        writeln!(out, "device memory      {}", bytes(reply.memory_bytes))?;
        writeln!(out, "resident           {}", bytes(reply.resident_bytes))?;
        writeln!(out, "page               {}", bytes(reply.page_bytes.into()))?;
        writeln!(
            out,
            "block              {}",
            bytes(reply.block_bytes.into())
        )?;
        writeln!(out, "pages of a batch   {}", reply.max_batch_pages)?;
        writeln!(out, "bulk queues        {}", reply.bulk_queues)?;
        writeln!(out, "generation         {}", reply.generation)?;
        writeln!(out, "uuid               {}", reply.uuid)
    })
}

/// A uuid in its usual form.
fn uuid(bytes: &[u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::uuid;

    #[test]
    fn a_uuid_has_its_usual_form() {
        let bytes = std::array::from_fn(|index| index as u8 * 0x11);
        assert_eq!(uuid(&bytes), "00112233-4455-6677-8899-aabbccddeeff");
    }
}
