// SPDX-License-Identifier: GPL-2.0-only

//! Has the device copy the pages of a migration.

use super::DeviceMemory;
use crate::{
    link::{
        Batch,
        Lane,
        Link,
        Outcome, //
    },
    sys::{
        migrate::{
            Collected,
            Migration,
            Source, //
        },
        virtqueue::DmaDirection, //
    }, //
};
use hmm_protocol::{
    CopyEntry,
    Op,
    PAGE_ADDRESS_ZERO, //
};
use kernel::{
    page::PAGE_SIZE,
    prelude::*, //
};

/// How often a batch that was not answered, or not sensibly, is tried.
const TRIES: usize = 2;

/// Copies every page that has a destination. A page that the device did not copy loses its
/// destination; the number of those is returned. `op` is `ToDevice` or `ToSystem`.
///
/// When this returns the device does not touch the pages any more.
pub(super) fn copy<'a>(
    memory: &DeviceMemory,
    link: &'a Link,
    lane: Lane,
    op: Op,
    migration: &mut Migration<'a, Collected>,
) -> usize {
    let wanted = pages(memory, op, migration).count();
    if wanted == 0 {
        return 0;
    }
    for _ in 0..TRIES {
        let Ok(mut outcome) = run(memory, link, lane, op, migration) else {
            continue;
        };
        if outcome.was_answered() {
            return drop_failed(memory, link, op, migration, &mut outcome);
        }
    }
    let mut dropped = 0;
    for index in 0..migration.len() {
        dropped += usize::from(migration.destination(index).is_some());
        migration.clear_destination(index);
    }
    link.stats().copy_errors.add(dropped as u64);
    dropped
}

/// The pages that have a destination: number within the migration, and index in device memory.
fn pages<'m>(
    memory: &'m DeviceMemory,
    op: Op,
    migration: &'m Migration<'_, Collected>,
) -> impl Iterator<Item = (usize, usize)> + 'm {
    (0..migration.len()).filter_map(move |index| {
        let destination = migration.destination(index)?;
        let device = match op {
            Op::ToDevice => destination,
            _ => match migration.source(index) {
                Source::Page(page) => page,
                _ => return None,
            },
        };
        Some((index, memory.index_of(device)?))
    })
}

/// Sends one batch and waits for it.
fn run<'a>(
    memory: &DeviceMemory,
    link: &'a Link,
    lane: Lane,
    op: Op,
    migration: &mut Migration<'a, Collected>,
) -> Result<Outcome<'a>> {
    // Device pages in a row need 8 bytes a page, others 32.
    let first = pages(memory, op, migration)
        .next()
        .map(|(_, device)| device);
    let first = first.ok_or(EINVAL)?;
    let contiguous = pages(memory, op, migration)
        .enumerate()
        .all(|(nth, (_, device))| device == first + nth);
    let mut batch = if contiguous {
        Batch::of_pages(link, lane, op, device_address(first))?
    } else {
        Batch::of_entries(link, lane)?
    };
    let direction = match op {
        Op::ToDevice => DmaDirection::ToDevice,
        _ => DmaDirection::FromDevice,
    };
    // A page that cannot be mapped loses its destination, which may break the row.
    let before = pages(memory, op, migration).count();
    migration.map(batch.queue(), direction);
    if pages(memory, op, migration).count() != before {
        return Err(ENOMEM);
    }

    for (index, device) in pages(memory, op, migration) {
        let address = migration.dma_address(index).map(|address| address.get());
        if contiguous {
            batch.push_page(address.unwrap_or(PAGE_ADDRESS_ZERO))?;
        } else {
            let device = device_address(device);
            // CAST: A page is smaller than 4 GiB.
            batch.push_entry(match address {
                Some(address) => CopyEntry::new(op, address, device, PAGE_SIZE as u32),
                None => CopyEntry::new(Op::Fill, 0, device, PAGE_SIZE as u32),
            })?;
        }
    }
    Ok(batch.run())
}

/// Takes the destinations of the entries back that the device did not execute.
fn drop_failed(
    memory: &DeviceMemory,
    link: &Link,
    op: Op,
    migration: &mut Migration<'_, Collected>,
    outcome: &mut Outcome<'_>,
) -> usize {
    let mut entry = 0;
    let mut failed = 0;
    for index in 0..migration.len() {
        // A page that loses its destination drops out of `pages`, so count the entries here.
        let has_entry = migration
            .destination(index)
            .is_some_and(|destination| match op {
                Op::ToDevice => memory.index_of(destination).is_some(),
                _ => matches!(migration.source(index), Source::Page(_)),
            });
        if !has_entry {
            continue;
        }
        if !outcome.is_ok(entry) {
            migration.clear_destination(index);
            failed += 1;
        }
        entry += 1;
    }
    link.stats().copy_errors.add(failed as u64);
    failed
}

fn device_address(index: usize) -> u64 {
    index as u64 * PAGE_SIZE as u64
}
