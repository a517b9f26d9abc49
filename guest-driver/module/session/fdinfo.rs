// SPDX-License-Identifier: GPL-2.0-only

//! `/proc/PID/fdinfo/FD` of an open node: the device memory of the process that opened it, with the keys of DRM drivers
//! (`Documentation/gpu/drm-usage-stats.rst`), and that of all processes.

use super::call::OpenSession;
use kernel::{
    page::PAGE_SHIFT,
    seq_file::{
        seq_print,
        SeqFile, //
    },
};

/// Bits of a KiB.
const KIB_SHIFT: u32 = 10;

/// Writes it. The device need not be there.
pub(super) fn show(file: &OpenSession, out: &SeqFile) {
    let (pool, opener) = (&file.session.pool, &file.opener);
    let kib_of_pages = |pages: u64| pages << (PAGE_SHIFT as u32 - KIB_SHIFT);
    seq_print!(out, "drm-driver:\tvirtio_hmm\n");
    // Files of one process are one client, whose memory is not to be counted twice.
    seq_print!(out, "drm-client-id:\t{}\n", opener.number());
    let resident = kib_of_pages(opener.pages());
    // What is no longer on the device is ordinary memory.
    seq_print!(out, "drm-total-vram:\t{resident} KiB\n");
    seq_print!(out, "drm-resident-vram:\t{resident} KiB\n");
    let limit = opener.limit();
    if limit != u64::MAX {
        // A limit was told in bytes, so it is less than 2^52 pages.
        seq_print!(out, "virtio_hmm-limit-vram:\t{} KiB\n", kib_of_pages(limit));
    }
    let all = pool.pages().resident_bytes() >> KIB_SHIFT;
    seq_print!(out, "virtio_hmm-device-resident:\t{all} KiB\n");
    let evicted = pool.stats().bytes_by_eviction.get() >> KIB_SHIFT;
    seq_print!(out, "virtio_hmm-device-evicted:\t{evicted} KiB\n");
}
