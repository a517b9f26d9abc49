// SPDX-License-Identifier: GPL-2.0-only

//! The ioctls of `/dev/hmmN`. `hmm_uapi` describes them.

mod argument;
mod policy;
mod prefetch;
mod residency;

use crate::{
    device::{
        Device,
        DevicePool, //
    },
    engine::BATCH_PAGES,
    migration::{
        range::{
            migrate,
            Target, //
        },
        Order,
        Tally, //
    },
    policy::ProcessEntry,
    pool::AccountId,
    sys::{
        address_space::process::{
            ProcMount, //
            Process,
        },
        services::{
            node::Handler,
            workqueue::WorkQueue, //
        }, //
    }, //
};
use argument::Argument;
use core::ops::Range;
use hmm_logic::BLOCK_PAGES;
use hmm_uapi::{
    Direction,
    Info,
    Migrate,
    MigrateFlags,
    Stats,
    Trigger,
    ADVISE_NR,
    EVICT_NR,
    INFO_NR,
    IOCTL_TYPE,
    LIMIT_NR,
    MIGRATE_NR,
    PREFETCH_NR,
    RESIDENCY_NR,
    STATS_NR,
    UAPI_VERSION, //
    WAIT_NR,
};
use kernel::{
    ioctl::{
        _IOC_DIR,
        _IOC_NR,
        _IOC_TYPE, //
    },
    page::PAGE_SIZE,
    prelude::*,
    sync::Arc,
    task::Pid, //
};
use prefetch::Prefetches;

/// What stands behind `/dev/hmmN`.
#[derive(Clone)]
pub(crate) struct Session {
    pool: Arc<DevicePool>,
    /// For prefetches, which wait for the device's workers.
    prefetchers: Arc<WorkQueue>,
    /// By which the kernel is asked whose memory a caller may move.
    proc: Arc<ProcMount>,
}

/// An open file.
pub(crate) struct OpenSession {
    // Stopped before the workqueues go.
    prefetches: Pin<KBox<Prefetches>>,
    session: Session,
}

impl Session {
    /// Sessions of the device that is attached to `pool`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, `ENODEV` the kernel has no procfs.
    pub(crate) fn new(pool: Arc<DevicePool>) -> Result<Self> {
        let prefetchers = Arc::new(WorkQueue::freezable(c"virtio_hmm_prefetch")?, GFP_KERNEL)?;
        Ok(Self {
            pool,
            prefetchers,
            proc: Arc::new(ProcMount::new()?, GFP_KERNEL)?,
        })
    }
}

impl Handler for Session {
    type File = OpenSession;

    fn open(&self) -> Result<OpenSession> {
        drop(self.pool.attached().ok_or(ENODEV)?);
        Ok(OpenSession {
            prefetches: KBox::pin_init(Prefetches::new(), GFP_KERNEL)?,
            session: self.clone(),
        })
    }

    fn ioctl(file: &OpenSession, command: u32, argument: usize) -> Result<isize> {
        // Both directions: every structure is read and written.
        if _IOC_TYPE(command) != u32::from(IOCTL_TYPE) || _IOC_DIR(command) != 3 {
            return Err(ENOTTY);
        }
        // CAST: The number has 8 bits.
        let number = _IOC_NR(command) as u8;
        if number == WAIT_NR {
            // What has begun can be waited for even if the device has gone meanwhile.
            return policy::wait(file, Argument::new(command, argument)?).map(|()| 0);
        }
        let session = &file.session;
        let device = session.pool.attached().ok_or(ENODEV)?;
        let call = Call {
            device: &device,
            proc: &session.proc,
        };
        match number {
            INFO_NR => call.info(Argument::new(command, argument)?),
            MIGRATE_NR => call.migrate(Argument::new(command, argument)?),
            RESIDENCY_NR => residency::residency(
                device.memory(),
                &session.proc,
                Argument::new(command, argument)?,
            ),
            STATS_NR => call.stats(Argument::new(command, argument)?),
            ADVISE_NR => call.advise(Argument::new(command, argument)?),
            PREFETCH_NR => call.prefetch(file, Argument::new(command, argument)?),
            EVICT_NR => call.evict(Argument::new(command, argument)?),
            LIMIT_NR => call.limit(Argument::new(command, argument)?),
            _ => Err(ENOTTY),
        }
        .map(|()| 0)
    }
}

/// An ioctl that found the device.
struct Call<'a> {
    device: &'a Device,
    proc: &'a ProcMount,
}

impl Call<'_> {
    /// A process by its id.
    fn process(&self, pid: Pid) -> Result<Process> {
        Process::find(self.proc, pid)
    }

    /// What a process has of device memory, and may have.
    fn entry(&self, process: &Process) -> Result<Arc<ProcessEntry>> {
        self.device.pool().processes().of(process.id()?)
    }

    fn order(
        &self,
        direction: Direction,
        flags: MigrateFlags,
        trigger: Trigger,
        account: AccountId,
    ) -> Order {
        Order {
            direction,
            flags,
            huge: *crate::module_parameters::huge_pages.value_ref() != 0,
            ticket: self.device.pages().ticket(),
            trigger,
            account,
        }
    }

    fn info(&self, mut argument: Argument<Info>) -> Result {
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

    fn migrate(&self, mut argument: Argument<Migrate>) -> Result {
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
        let way = Way::of(range.clone(), || {
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
            let order = self.order(direction, flags, Trigger::User, account);
            let target = Target {
                process: &process,
                known,
                is_stopped: &|| false,
            };
            let end = range.end;
            migrate(self.device, target, range, end, order, &mut tally)
        })?;

        call.next = way.next as u64;
        call.pages_moved = tally.moved;
        call.pages_skipped = tally.skipped;
        call.batches = tally.batches;
        call.doorbells = tally.doorbells;
        argument.write()?;
        way.result(&process)
    }

    fn stats(&self, mut argument: Argument<Stats>) -> Result {
        let call = argument.get_mut();
        if call.flags != 0 || call.reserved != 0 {
            return Err(EINVAL);
        }
        let stats = self.device.stats();
        let pool = self.device.pages();
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
}

/// How far a call came on its way through a range, which a signal may have ended.
struct Way {
    range: Range<usize>,
    next: usize,
}

impl Way {
    /// The way through `range` of `go`, which returns where it ended.
    fn of(range: Range<usize>, go: impl FnOnce() -> Result<usize>) -> Result<Self> {
        let next = match go() {
            Err(error) if error == ERESTARTSYS => range.start,
            result => result?,
        };
        Ok(Self { range, next })
    }

    /// What the call returns once its argument is written.
    ///
    /// # Errors
    ///
    /// `ESRCH`: the process has left. `ERESTARTSYS`: it has done nothing, and the kernel may begin it again. `EINTR`: it
    /// has come a part of the way.
    fn result(self, process: &Process) -> Result {
        if self.next >= self.range.end {
            Ok(())
        } else if process.has_left() {
            Err(ESRCH)
        } else if self.next == self.range.start {
            Err(ERESTARTSYS)
        } else {
            Err(EINTR)
        }
    }
}

/// Checks a range of addresses: page aligned, not empty, not wrapping.
fn page_range(start: u64, end: u64) -> Result<Range<usize>> {
    let (start, end) = (usize::try_from(start)?, usize::try_from(end)?);
    if start % PAGE_SIZE != 0 || end % PAGE_SIZE != 0 || start >= end {
        return Err(EINVAL);
    }
    Ok(start..end)
}
