// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! The structures of the crate, as data.

use hmm_uapi::*;
use std::mem::{offset_of, size_of, size_of_val};

/// A structure as the crate has it.
pub(super) struct Expected {
    pub(super) name: &'static str,
    pub(super) number: u8,
    pub(super) size: usize,
    /// Name, offset and size.
    pub(super) fields: Vec<(&'static str, usize, usize)>,
}

/// Names every field, so that a new one does not compile until it is in the list.
macro_rules! expected {
    ($name:literal, $number:ident, $type:ident { $($field:ident),* $(,)? }) => {{
        let value = $type::default();
        let $type { $($field),* } = &value;
        Expected {
            name: $name,
            number: $number,
            size: size_of::<$type>(),
            fields: vec![$((stringify!($field), offset_of!($type, $field), size_of_val($field))),*],
        }
    }};
}

/// Every structure, in order of its number.
pub(super) fn expected() -> Vec<Expected> {
    vec![
        expected!(
            "info",
            INFO_NR,
            Info {
                flags,
                version,
                features,
                memory_bytes,
                resident_bytes,
                page_bytes,
                block_bytes,
                max_batch_pages,
                bulk_queues,
                generation,
                uuid
            }
        ),
        expected!(
            "migrate",
            MIGRATE_NR,
            Migrate {
                flags,
                direction,
                pid,
                reserved,
                start,
                end,
                next,
                pages_moved,
                pages_skipped,
                batches,
                doorbells
            }
        ),
        expected!(
            "residency",
            RESIDENCY_NR,
            Residency {
                flags,
                pid,
                start,
                end,
                map,
                system_pages,
                device_pages,
                other_pages
            }
        ),
        expected!(
            "stats",
            STATS_NR,
            Stats {
                flags,
                reserved,
                bytes_to_device,
                bytes_to_system,
                bytes_by_fault,
                bytes_by_eviction,
                resident_bytes,
                peak_resident_bytes,
                cpu_faults,
                cpu_faults_failed,
                batches,
                doorbells,
                copy_errors,
                timeouts,
                protocol_errors,
                pages_skipped
            }
        ),
        expected!(
            "advise",
            ADVISE_NR,
            Advise {
                flags,
                pid,
                start,
                end,
                side,
                keep,
                window_least,
                window_most,
                touches,
                reserved
            }
        ),
        expected!(
            "prefetch",
            PREFETCH_NR,
            Prefetch {
                flags,
                direction,
                pid,
                reserved,
                start,
                end,
                id
            }
        ),
        expected!(
            "wait",
            WAIT_NR,
            Wait {
                flags,
                timeout_ms,
                id,
                state,
                error,
                next,
                pages_moved,
                pages_skipped
            }
        ),
        expected!(
            "evict",
            EVICT_NR,
            Evict {
                flags,
                pid,
                start,
                end,
                bytes,
                bytes_evicted,
                pages_skipped
            }
        ),
        expected!(
            "limit",
            LIMIT_NR,
            Limit {
                flags,
                pid,
                limit_bytes,
                resident_bytes
            }
        ),
        expected!(
            "job",
            JOB_NR,
            Job {
                flags,
                kind,
                pid,
                eventfd,
                arguments,
                id
            }
        ),
        expected!(
            "job_wait",
            JOB_WAIT_NR,
            JobWait {
                flags,
                timeout_ms,
                id,
                state,
                error,
                status,
                reserved,
                result,
                address,
                program_counter,
                amount,
                device_ns,
                faults
            }
        ),
    ]
}
