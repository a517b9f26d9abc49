// SPDX-License-Identifier: GPL-2.0-only

//! The ioctls INFO and STATS.

use super::{
    argument::Argument,
    call::Call, //
};
use crate::{
    device::DevicePool,
    engine::BATCH_PAGES, //
};
use hmm_logic::BLOCK_PAGES;
use hmm_uapi::{
    Info,
    Stats,
    UAPI_VERSION, //
};
use kernel::{
    page::PAGE_SIZE,
    prelude::*, //
};

impl Call<'_> {
    pub(super) fn info(&self, mut argument: Argument<Info>) -> Result {
        let info = argument.get_mut();
        if info.flags != 0 {
            return Err(EINVAL);
        }
        let link = self.device.link();
        let (limits, identity) = (link.limits(), self.device.pool().identity());
        *info = Info {
            flags: 0,
            version: UAPI_VERSION,
            features: link.features().0,
            memory_bytes: limits.memory_bytes,
            resident_bytes: self.device.pages().resident_bytes(),
            page_bytes: PAGE_SIZE as u32,
            block_bytes: (BLOCK_PAGES * PAGE_SIZE) as u32,
            max_batch_pages: BATCH_PAGES as u32,
            bulk_queues: limits.bulk_queues,
            generation: identity.generation,
            uuid: identity.uuid,
        };
        argument.write()
    }
}

/// STATS, for which the device need not be there.
pub(super) fn stats(pool: &DevicePool, mut argument: Argument<Stats>) -> Result {
    let call = argument.get_mut();
    if call.flags != 0 || call.reserved != 0 {
        return Err(EINVAL);
    }
    let (stats, pool) = (pool.stats(), pool.pages());
    *call = Stats {
        flags: 0,
        reserved: 0,
        bytes_to_device: stats.bytes_to_device.get(),
        bytes_to_system: stats.bytes_to_system.get(),
        bytes_by_fault: stats.bytes_by_fault.get(),
        bytes_by_eviction: stats.bytes_by_eviction.get(),
        resident_bytes: pool.resident_bytes(),
        peak_resident_bytes: pool.peak_resident_bytes(),
        cpu_faults: stats.cpu_faults.get(),
        cpu_faults_failed: stats.cpu_faults_failed.get(),
        batches: stats.batches.get(),
        doorbells: stats.doorbells.get(),
        copy_errors: stats.copy_errors.get(),
        timeouts: stats.timeouts.get(),
        protocol_errors: stats.protocol_errors.get(),
        pages_skipped: stats.skipped(),
    };
    argument.write()
}
