// SPDX-License-Identifier: GPL-2.0-only

//! The ioctl MIGRATE.

use super::{
    argument::Argument,
    call::{
        page_range,
        Call,
        RangeProgress, //
    }, //
};
use crate::{
    migration::{
        range::{
            migrate,
            Target, //
        },
        Tally, //
    },
    pool::AccountId, //
};
use hmm_uapi::{
    Direction,
    Migrate,
    MigrateFlags,
    SkipReason,
    Trigger, //
};
use kernel::prelude::*;

impl Call<'_> {
    pub(super) fn migrate(&self, mut argument: Argument<Migrate>) -> Result {
        let call = argument.get_mut();
        let direction = Direction::from_raw(call.direction).ok_or(EINVAL)?;
        if call.flags & !MigrateFlags::ALL.0 != 0 || call.reserved != 0 {
            return Err(EINVAL);
        }
        if direction == Direction::ToSystem && call.flags != 0 {
            return Err(EINVAL);
        }
        let range = page_range(call.start, call.end)?;
        let process = self.process(call.pid)?;
        let mut tally = Tally::default();
        let way = RangeProgress::of(range.clone(), || {
            let spaces = self.device.spaces();
            // Its account stays open as long as pages are charged to it.
            let (known, entry) = match direction {
                Direction::ToDevice => {
                    self.device.engine().hibernation.wait_until_over()?;
                    let known = spaces.of(process.mm())?;
                    (Some(known), Some(self.entry(&process)?))
                }
                Direction::ToSystem => (spaces.find(process.mm()), None),
            };
            let account = entry
                .as_ref()
                .map_or(Ok(AccountId::NONE), |entry| entry.account())?;
            let flags = MigrateFlags(call.flags);
            let args = self.args(direction, flags, Trigger::User, account);
            let target = Target {
                process: &process,
                known,
                is_stopped: &|| false,
            };
            let end = range.end;
            migrate(self.device, target, range, end, args, &mut tally)
        })?;

        if tally.skipped[SkipReason::Lost as usize] > 0 {
            // What was not copied is where it was, and is migrated when the device is back. Where all was, there is nothing to
            // wait for.
            return Err(ENODEV);
        }
        call.next = way.next as u64;
        call.pages_moved = tally.moved;
        call.pages_skipped = tally.skipped;
        call.batches = tally.batches;
        call.doorbells = tally.doorbells;
        argument.write()?;
        way.result(&process)
    }
}
