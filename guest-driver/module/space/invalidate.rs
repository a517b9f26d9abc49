// SPDX-License-Identifier: GPL-2.0-only

//! The process's page tables change: the device must not access the range any more.

use super::{
    table::{
        Table,
        FIRST, //
    },
    view::View, //
};
use crate::{
    stats::Stage,
    sys::{
        address_space::mirror::{
            Cause,
            Invalidation,
            Mirrored, //
        },
        device_memory::owner::Owner,
        services::trace, //
    }, //
};
use core::ops::Range;
use hmm_uapi::Trigger;
use kernel::page::PAGE_SIZE;

impl Mirrored for View {
    fn invalidate(&self, invalidation: &Invalidation<'_>) -> bool {
        let range = &invalidation.range;
        let table = match invalidation.may_sleep {
            true => Some(self.table.lock()),
            false => self.table.try_lock(),
        };
        let Some(mut table) = table else {
            return false;
        };
        if invalidation.cause == Cause::OwnExclusive {
            table.begin_exclusive(range.start, invalidation.is_amid_others());
            return true;
        }
        let is_mapped = table.any(range);
        if is_mapped && !invalidation.may_sleep {
            // The device would have to be waited for.
            return false;
        }
        invalidation.note();
        table.break_exclusive(range);
        if is_mapped {
            self.take_away(&table, range, name(invalidation.cause));
        }
        let is_other_memory = matches!(invalidation.cause, Cause::Unmap | Cause::Release);
        if is_mapped || is_other_memory {
            table.forget(range, is_other_memory);
        }
        if invalidation.cause == Cause::Release {
            table.end();
        }
        true
    }

    fn owner(&self) -> Owner {
        self.pool.memory().owner()
    }
}

impl View {
    /// Has the device ask for the pages of `range` again, so that what is now advised about them is followed.
    pub(super) fn take_for_advice(&self, range: &Range<usize>) {
        let mut table = self.table.lock();
        if table.any(range) {
            self.take_away(&table, range, "advice");
        }
        table.advise(range);
    }

    /// Takes `range` away from the device. A device that is not there, or was reset since, has nothing.
    fn take_away(&self, table: &Table, range: &Range<usize>, cause: &'static str) {
        let Some(device) = self.pool.attached_for_change() else {
            return;
        };
        let Some(session) = table.session(device.link()) else {
            return;
        };
        let time = (device.stats()).measure(Stage::Invalidate, Trigger::DeviceFault);
        let start = (range.start & !(PAGE_SIZE - 1)) as u64;
        let end = (range.end as u64)
            .min(FIRST)
            .next_multiple_of(PAGE_SIZE as u64);
        let len = end.saturating_sub(start);
        (device.link()).unmap(self.context, session, start, len);
        device.stats().contexts.invalidations.add(1);
        trace::invalidate(
            device.vdev(),
            self.context,
            cause,
            &(start..end),
            time.started(),
        );
    }
}

/// The name of a cause.
fn name(cause: Cause) -> &'static str {
    match cause {
        Cause::Release => "release",
        Cause::Unmap => "unmap",
        Cause::OwnExclusive => "exclusive",
        Cause::Change => "change",
    }
}
