// SPDX-License-Identifier: GPL-2.0-only

//! Has the device copy the pages of a migration.

use crate::{
    device::{
        Device,
        DeviceMemory, //
    },
    link::{
        Batch,
        InFlight, //
    },
    stats::{
        Stage,
        Stats, //
    },
    sys::{
        migrate::{
            Collected,
            Cursor,
            Migration,
            Transfer, //
        },
        virtio::virtqueue::DmaDirection, //
    }, //
};
use hmm_protocol::{
    CopyEntry,
    Op,
    PAGE_ADDRESS_ZERO, //
};
use hmm_uapi::Trigger;
use kernel::{
    page::PAGE_SIZE,
    prelude::*, //
};

/// How often a batch that was not answered, or not sensibly, is tried.
const TRIES: usize = 2;
/// How often a batch is made that finds its queue closed, since the device is being started anew.
const TRIES_TO_SEND: usize = 8;

/// A migration whose pages the device copies.
///
/// The device does not access the pages any more when the migration ends, however it ends.
pub(super) struct Copying<'a> {
    // Dropped, hence waited for, before the migration.
    flight: Option<InFlight<'a>>,
    migration: Migration<'a, Collected>,
    device: &'a Device,
    trigger: Trigger,
    op: Op,
    /// Pages that the device cannot reach.
    unmapped: usize,
    sent: Sent,
}

/// What was sent to the device for a migration, counting repeated attempts.
#[derive(Clone, Copy, Default)]
pub(super) struct Sent {
    pub(super) batches: u64,
    pub(super) doorbells: u64,
}

/// Why a batch was not sent.
enum NotSent {
    /// The queue is closed. All pages are as they were.
    Closed,
    /// So many pages could not be mapped for the device; they have no destination any more.
    Unmapped(usize),
    /// There is no request for it, or it does not take it.
    Refused,
}

impl From<Error> for NotSent {
    fn from(_: Error) -> Self {
        Self::Refused
    }
}

impl<'a> Copying<'a> {
    /// Has the device copy everything that has a destination. `op` is `ToDevice` or `ToSystem`.
    pub(super) fn start(
        device: &'a Device,
        trigger: Trigger,
        op: Op,
        migration: Migration<'a, Collected>,
    ) -> Self {
        let mut copying = Self {
            flight: None,
            migration,
            device,
            trigger,
            op,
            unmapped: 0,
            sent: Sent::default(),
        };
        copying.send();
        copying
    }

    fn send(&mut self) {
        let _time = self.device.stats().measure(Stage::Submit, self.trigger);
        for _ in 0..TRIES_TO_SEND {
            let Some(first) = self.migration.transfers().next() else {
                return;
            };
            let sent = send(
                self.device,
                self.trigger,
                self.op,
                &mut self.migration,
                &first,
            );
            match sent {
                Ok(flight) => {
                    self.sent.batches += u64::from(flight.is_submitted());
                    self.sent.doorbells += u64::from(flight.rang_doorbell());
                    self.flight = Some(flight);
                }
                // A new batch waits until the device has been started.
                Err(NotSent::Closed) => continue,
                // What is left may do with another form.
                Err(NotSent::Unmapped(pages)) => {
                    self.unmapped += pages;
                    continue;
                }
                // What could not be sent counts as not answered.
                Err(NotSent::Refused) => {}
            }
            return;
        }
    }

    /// Waits for the device. What it did not copy loses its destination; the number of those pages
    /// is returned beside the migration.
    pub(super) fn finish(self) -> (Migration<'a, Collected>, usize) {
        let (migration, failed, _) = self.finish_counted();
        (migration, failed)
    }

    /// As [`Copying::finish`]; also returns what was sent.
    pub(super) fn finish_counted(mut self) -> (Migration<'a, Collected>, usize, Sent) {
        for attempt in 1..=TRIES {
            if let Some(flight) = self.flight.take() {
                let time = self.device.stats().measure(Stage::Wait, self.trigger);
                let outcome = flight.wait();
                drop(time);
                if outcome.was_answered() {
                    if let Some((bytes, ns)) = outcome.pace() {
                        self.device.engine().tuning.copied(bytes, ns);
                    }
                    let failed = if outcome.all_ok() {
                        0
                    } else {
                        self.drop_failed(|entry| !outcome.is_ok(entry))
                    };
                    return (self.migration, failed + self.unmapped, self.sent);
                }
            }
            if attempt < TRIES {
                self.send();
            }
        }
        let failed = self.drop_failed(|_| true) + self.unmapped;
        (self.migration, failed, self.sent)
    }

    /// Takes the destinations of those entries back that failed. Returns how many pages they have.
    fn drop_failed(&mut self, mut has_failed: impl FnMut(usize) -> bool) -> usize {
        let mut cursor = Cursor::default();
        let (mut entry, mut failed, mut pages) = (0, 0, 0);
        while let Some(transfer) = self.migration.next_transfer(&mut cursor) {
            if has_failed(entry) {
                failed += 1;
                pages += transfer.pages;
                let index = transfer.index();
                self.migration.clear_destination(index);
            }
            entry += 1;
        }
        self.device.stats().copy_errors.add(failed);
        pages
    }
}

/// Installs what was copied, and ends the migration. Returns how many pages moved.
pub(super) fn install(
    stats: &Stats,
    trigger: Trigger,
    migration: Migration<'_, Collected>,
) -> usize {
    let time = stats.measure(Stage::Pages, trigger);
    let installed = migration.install();
    let moved = installed.moved();
    let _time = time.then(Stage::Finalize);
    drop(installed);
    moved
}

/// The index of the device side of a transfer.
fn device_index(memory: &DeviceMemory, op: Op, transfer: &Transfer) -> Option<usize> {
    memory.index_of_pfn(match op {
        Op::ToDevice => transfer.destination,
        _ => transfer.source?,
    })
}

/// Sends one batch. `first` is its first transfer.
fn send<'a>(
    device: &'a Device,
    trigger: Trigger,
    op: Op,
    migration: &mut Migration<'a, Collected>,
    first: &Transfer,
) -> core::result::Result<InFlight<'a>, NotSent> {
    let direction = match op {
        Op::ToDevice => DmaDirection::ToDevice,
        _ => DmaDirection::FromDevice,
    };
    let memory = device.memory();
    let start = device_index(memory, op, first).ok_or(EINVAL)?;
    // Single pages in a row on the device need 8 bytes each, everything else 32. Mostly they are.
    let mut batch = Batch::of_pages(device.link(), trigger, op, device_address(start))?;
    match migration.map(batch.queue(), batch.carrier()?, direction) {
        Ok(0) => {}
        Ok(unmapped) => return Err(NotSent::Unmapped(unmapped)),
        Err(_) => return Err(NotSent::Closed),
    }
    let mut is_row = true;
    for (transfer, index) in migration.transfers().zip(start..) {
        is_row = transfer.pages == 1 && device_index(memory, op, &transfer) == Some(index);
        if !is_row {
            break;
        }
        let address = migration.dma_address(&transfer);
        batch.push_page(address.unwrap_or(PAGE_ADDRESS_ZERO))?;
    }
    if !is_row {
        batch = batch.into_entries();
        for transfer in migration.transfers() {
            let device = device_address(device_index(memory, op, &transfer).ok_or(EINVAL)?);
            let bytes = u32::try_from(transfer.pages * PAGE_SIZE).map_err(|_| NotSent::Refused)?;
            batch.push_entry(match migration.dma_address(&transfer) {
                Some(address) => CopyEntry::new(op, address, device, bytes),
                None => CopyEntry::new(Op::Fill, 0, device, bytes),
            })?;
        }
    }
    Ok(batch.submit())
}

fn device_address(index: usize) -> u64 {
    index as u64 * PAGE_SIZE as u64
}
