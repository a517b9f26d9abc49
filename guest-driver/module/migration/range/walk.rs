// SPDX-License-Identifier: GPL-2.0-only

//! Moves one piece of an address space to its end, hold by hold of the mmap lock.

use super::{
    hold::hold,
    request::Request, //
};
use crate::{
    engine::WalkBuffers,
    migration::{
        evict,
        tally::Tally, //
    }, //
};
use core::ops::Range;
use hmm_uapi::SkipReason;
use kernel::{
    page::PAGE_SHIFT,
    prelude::*,
    sync::atomic::ordering::Relaxed,
    time::{
        delay::fsleep,
        Delta, //
    }, //
};

/// How often room is made for one batch.
const TRIES: usize = 4;
/// How often busy pages are tried again.
const ROUNDS: usize = 2;
/// How long to wait before busy pages are tried again.
const PAUSE: Delta = Delta::from_micros(100);

/// Migrates `range` (page aligned) to its end, and then tries the busy pages again.
///
/// # Errors
///
/// `ENODEV`: the device is dead, or going.
pub(super) fn walk(
    request: &Request<'_>,
    range: Range<usize>,
    scratch: &mut WalkBuffers,
    tally: &mut Tally,
) -> Result {
    scratch.stragglers.forget();
    scratch.stragglers.set_open(true);
    once(request, range, scratch, tally)?;
    for rounds_left in (0..ROUNDS).rev() {
        scratch.stragglers.set_open(rounds_left > 0);
        let runs = scratch.stragglers.take();
        if !runs.is_empty() {
            fsleep(PAUSE);
        }
        let mut rest = runs.iter();
        let result = rest.try_for_each(|run| once(request, run.clone(), scratch, tally));
        scratch.stragglers.give_back(runs);
        result?;
    }
    Ok(())
}

/// Moves the pages of `range` (page aligned), unless the process ends before or the request is
/// given up. What is left then counts as busy.
fn once(
    request: &Request<'_>,
    range: Range<usize>,
    scratch: &mut WalkBuffers,
    tally: &mut Tally,
) -> Result {
    let mut address = range.start;
    let mut may_evict = true;
    // Others may take what was made available, so that may be needed more than once.
    let mut tries = TRIES;
    while address < range.end {
        if request.device.link().is_stopping() {
            return Err(ENODEV);
        }
        let stop = match hold(request, address..range.end, may_evict, scratch, tally) {
            Ok(stop) if !request.process.has_left() => stop,
            other => {
                let left = other.map_or(address, |stop| stop.address)..range.end;
                let pages = (left.len() >> PAGE_SHIFT) as u64;
                tally.skip(request.device.stats(), SkipReason::Busy, pages);
                request.frontier.stop();
                return Ok(());
            }
        };
        if stop.address > address {
            tries = TRIES;
        }
        address = stop.address;
        may_evict = true;
        if let Some(pages) = stop.needs_room {
            // If there is no room to be made, what fits is moved, and the rest is counted.
            let before = request.args.ticket;
            request.was_short.store(true, Relaxed);
            tries -= 1;
            may_evict = evict::make_room(request.device, pages, before) && tries > 0;
        }
    }
    Ok(())
}
