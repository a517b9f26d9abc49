// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! What a process says about where its memory had better be.

use super::{call, Device, Error, Process, Skipped};
use crate::{
    Advise, AdviseFlags, Direction, Evict, Limit, LimitFlags, MigrateFlags, PreferredSide,
    Prefetch, PrefetchState, Wait, WaitFlags, NO_LIMIT, WAIT_FOR_EVER,
};
use core::ops::Range;
use core::time::Duration;
use rustix::fd::AsFd;
use rustix::io::Errno;

/// The advice for a range. `None` leaves earlier advice unchanged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Advice {
    /// The side that the memory had better be on.
    pub side: Option<PreferredSide>,
    /// Whether eviction spares the memory.
    pub keep: Option<bool>,
    /// What a CPU fault takes along at least and at most, bytes: powers of two from a page to
    /// 2 MiB; `(0, 0)` is the driver's own choice.
    pub window: Option<(u32, u32)>,
    /// By which page fault of the device within a block of 2 MiB the block's memory moves to the device;
    /// [`crate::NEVER_TOUCHES`]: by none; 0: by the first where the side is the device, else by none.
    pub touches: Option<u32>,
}

/// What to move while the caller goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefetchRequest {
    /// Whose memory.
    pub process: Process,
    /// Which addresses; both ends page aligned.
    pub range: Range<u64>,
    /// Where to; `None`: each part to the side that is advised for it.
    pub direction: Option<Direction>,
    /// How.
    pub flags: MigrateFlags,
}

/// A prefetch that was begun by an open device. It stops when the device is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PrefetchId(u64);

/// How far a prefetch came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefetchReport {
    /// Its state. Once that it is told not to be running, the id is gone.
    pub state: PrefetchState,
    /// Why it failed, if it did.
    pub error: Option<Errno>,
    /// Address at which it stopped, or is.
    pub next: u64,
    /// Pages moved.
    pub pages_moved: u64,
    /// Pages not moved.
    pub skipped: Skipped,
}

/// What an eviction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EvictReport {
    /// Bytes that were migrated back to system memory.
    pub bytes_evicted: u64,
    /// Pages of the range that did not.
    pub skipped: Skipped,
}

/// The device memory of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitReport {
    /// How much it may have, bytes; `None`: as much as there is.
    pub limit_bytes: Option<u64>,
    /// How much it has, bytes.
    pub resident_bytes: u64,
}

impl Device {
    /// Advises what had better be done with a range, all of which must be mapped.
    pub fn advise(&self, process: Process, range: Range<u64>, advice: Advice) -> Result<(), Error> {
        let mut flags = AdviseFlags::default();
        for (given, flag) in [
            (advice.side.is_some(), AdviseFlags::SIDE),
            (advice.keep.is_some(), AdviseFlags::KEEP),
            (advice.window.is_some(), AdviseFlags::WINDOW),
            (advice.touches.is_some(), AdviseFlags::TOUCHES),
        ] {
            if given {
                flags.0 |= flag.0;
            }
        }
        let (window_least, window_most) = advice.window.unwrap_or_default();
        let mut argument = Advise {
            flags: flags.0,
            pid: process.raw(),
            start: range.start,
            end: range.end,
            side: advice.side.unwrap_or(PreferredSide::None) as u32,
            keep: u32::from(advice.keep.unwrap_or(false)),
            window_least,
            window_most,
            touches: advice.touches.unwrap_or_default(),
            reserved: 0,
        };
        call::advise(self.as_fd(), &mut argument).map_err(|errno| match errno {
            Errno::NOMEM => Error::NotMapped {
                call: "ADVISE",
                range,
            },
            errno => Error::of_range("ADVISE", errno, process, range),
        })
    }

    /// Begins to move a range, and does not wait for it.
    pub fn prefetch(&self, request: &PrefetchRequest) -> Result<PrefetchId, Error> {
        let mut argument = Prefetch {
            flags: request.flags.0,
            direction: request.direction.map_or(0, |direction| direction as u32),
            pid: request.process.raw(),
            start: request.range.start,
            end: request.range.end,
            ..Prefetch::default()
        };
        let (process, range) = (request.process, request.range.clone());
        call::prefetch(self.as_fd(), &mut argument)
            .map_err(|errno| Error::of_range("PREFETCH", errno, process, range))?;
        Ok(PrefetchId(argument.id))
    }

    /// How far a prefetch has come.
    pub fn prefetch_state(&self, id: PrefetchId) -> Result<PrefetchReport, Error> {
        self.wait_for(id, WaitFlags::default(), 0)
    }

    /// Waits for a prefetch, at most for `limit`; without, to its end.
    pub fn wait(&self, id: PrefetchId, limit: Option<Duration>) -> Result<PrefetchReport, Error> {
        self.wait_for(id, WaitFlags::default(), milliseconds(limit))
    }

    /// Asks a prefetch to stop, and waits until it has.
    pub fn cancel(&self, id: PrefetchId) -> Result<PrefetchReport, Error> {
        self.wait_for(id, WaitFlags::CANCEL, WAIT_FOR_EVER)
    }

    fn wait_for(
        &self,
        id: PrefetchId,
        flags: WaitFlags,
        timeout_ms: u32,
    ) -> Result<PrefetchReport, Error> {
        let mut argument = Wait {
            flags: flags.0,
            timeout_ms,
            id: id.0,
            ..Wait::default()
        };
        call::wait(self.as_fd(), &mut argument).map_err(|errno| Error::of_device("WAIT", errno))?;
        Ok(PrefetchReport {
            // A state that this version does not know is one of an end.
            state: PrefetchState::from_raw(argument.state).unwrap_or(PrefetchState::Failed),
            error: i32::try_from(argument.error)
                .ok()
                .filter(|&error| error != 0)
                .map(Errno::from_raw_os_error),
            next: argument.next,
            pages_moved: argument.pages_moved,
            skipped: Skipped::new(argument.pages_skipped),
        })
    }

    /// Migrates the pages of a range back to system memory. A signal ends it early, which is an error of the call.
    pub fn evict(&self, process: Process, range: Range<u64>) -> Result<EvictReport, Error> {
        let mut argument = Evict {
            pid: process.raw(),
            start: range.start,
            end: range.end,
            ..Evict::default()
        };
        call::evict(self.as_fd(), &mut argument)
            .map_err(|errno| Error::of_range("EVICT", errno, process, range))?;
        Ok(evict_report(&argument))
    }

    /// Evicts so many bytes (a multiple of the page size) of any process. It may be
    /// more, since device memory is emptied block by block, or less, if there is no more that can
    /// come. Needs `CAP_SYS_PTRACE`.
    pub fn evict_bytes(&self, bytes: u64) -> Result<EvictReport, Error> {
        let mut argument = Evict {
            bytes,
            ..Evict::default()
        };
        call::evict(self.as_fd(), &mut argument)
            .map_err(|errno| Error::of_device("EVICT", errno))?;
        Ok(evict_report(&argument))
    }

    /// How much device memory a process has, and may have.
    pub fn limit(&self, process: Process) -> Result<LimitReport, Error> {
        self.limit_with(process, LimitFlags::default(), 0)
    }

    /// Sets how much device memory a process may have, bytes; `None`: as much as there is.
    pub fn set_limit(&self, process: Process, bytes: Option<u64>) -> Result<LimitReport, Error> {
        self.limit_with(process, LimitFlags::SET, bytes.unwrap_or(NO_LIMIT))
    }

    fn limit_with(
        &self,
        process: Process,
        flags: LimitFlags,
        limit_bytes: u64,
    ) -> Result<LimitReport, Error> {
        let mut argument = Limit {
            flags: flags.0,
            pid: process.raw(),
            limit_bytes,
            ..Limit::default()
        };
        call::limit(self.as_fd(), &mut argument)
            .map_err(|errno| Error::of_process("LIMIT", errno, process))?;
        Ok(LimitReport {
            limit_bytes: (argument.limit_bytes != NO_LIMIT).then_some(argument.limit_bytes),
            resident_bytes: argument.resident_bytes,
        })
    }
}

/// Milliseconds for WAIT, rounded up; the longest that can be said is for ever.
pub(super) fn milliseconds(limit: Option<Duration>) -> u32 {
    let Some(limit) = limit else {
        return WAIT_FOR_EVER;
    };
    let rounded = limit.saturating_add(Duration::from_nanos(999_999));
    u32::try_from(rounded.as_millis()).unwrap_or(WAIT_FOR_EVER)
}

fn evict_report(argument: &Evict) -> EvictReport {
    EvictReport {
        bytes_evicted: argument.bytes_evicted,
        skipped: Skipped::new(argument.pages_skipped),
    }
}

#[cfg(test)]
mod tests {
    use super::milliseconds;
    use crate::WAIT_FOR_EVER;
    use core::time::Duration;

    #[test]
    fn times_are_rounded_up() {
        assert_eq!(milliseconds(Some(Duration::ZERO)), 0);
        assert_eq!(milliseconds(Some(Duration::from_nanos(1))), 1);
        assert_eq!(milliseconds(Some(Duration::from_millis(7))), 7);
        assert_eq!(milliseconds(Some(Duration::MAX)), WAIT_FOR_EVER);
        assert_eq!(milliseconds(None), WAIT_FOR_EVER);
    }
}
