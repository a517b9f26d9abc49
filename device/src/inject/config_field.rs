// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Fields of the configuration space by their names.

use hmm_protocol::Config;

/// A field of the configuration space.
#[derive(Clone, Copy, Debug)]
pub struct ConfigField {
    name: &'static str,
    set: fn(&mut Config, u64),
}

macro_rules! fields {
    ($($name:ident: $int:ty),* $(,)?) => {
        [$(ConfigField {
            name: stringify!($name),
            // A value that is too large for its field loses its upper bits: nonsense is what the user asks for.
            set: |config, value| config.$name = (value as $int).into(),
        }),*]
    };
}

static FIELDS: [ConfigField; 20] = fields![
    magic: u32,
    version_major: u16,
    version_minor: u16,
    memory_bytes: u64,
    page_bytes: u32,
    max_batch_entries: u32,
    max_entry_bytes: u32,
    max_urgent_entries: u32,
    capabilities: u64,
    generation: u64,
    bulk_queues: u32,
    preferred_alignment: u32,
    max_batch_bytes: u64,
    health: u32,
    job_queues: u32,
    max_contexts: u32,
    max_jobs: u32,
    max_map_entries: u32,
    max_harts: u32,
    fault_timeout_ms: u32,
];

impl ConfigField {
    pub(super) fn by_name(name: &str) -> Option<Self> {
        FIELDS.into_iter().find(|field| field.name == name)
    }

    pub(super) fn names() -> Vec<&'static str> {
        FIELDS.iter().map(|field| field.name).collect()
    }

    pub(super) fn set(self, config: &mut Config, value: u64) {
        (self.set)(config, value);
    }
}
