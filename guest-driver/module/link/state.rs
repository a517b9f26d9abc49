// SPDX-License-Identifier: GPL-2.0-only

//! The state of a link, its queues and its session.

use super::{
    config::{
        self,
        Shape, //
    },
    control::{
        Control,
        Question, //
    },
    events::Events,
    mmu::{
        Mmu,
        MMU_REQUESTS, //
    },
    repairs::Repairs,
    request_pool::{
        request_pool,
        RequestPool, //
    }, //
};
use crate::{
    loss::Loss,
    stats::Stats,
    sys::{
        services::{
            log_limit::error_limited,
            random, //
        },
        virtio::{
            self,
            virtqueue::{
                Queue,
                Virtqueues, //
            }, //
        }, //
    }, //
};
use hmm_protocol::{
    job_queue_first,
    mmu_queue,
    report_queue,
    status_array_bytes,
    Features,
    JobLimits,
    Limits,
    SessionKey,
    Status,
    BULK_QUEUE_FIRST,
    COMPLETION_BYTES,
    CONTROL_BYTES,
    CONTROL_QUEUE,
    ENTRY_BYTES,
    EVENT_QUEUE,
    HEADER_BYTES,
    JOB_BYTES,
    PAGE_LIST_BYTES,
    URGENT_QUEUE, //
};
use hmm_uapi::Trigger;
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            ordering::{
                Acquire,
                Relaxed,
                Release, //
            },
            Atomic,
            AtomicFlag, //
        },
        Arc,
        Mutex, //
    },
    time::Delta, //
};

/// Entries of the largest batch that the driver builds: 16 MiB of single pages.
pub(crate) const BATCH_ENTRIES: usize = 4096;
/// Entries of the largest batch for the urgent queue.
const URGENT_ENTRIES: usize = 512;
/// Batches that wait or run on the bulk queues together. Callers that share at most as many leases of
/// something else never sleep for a request.
pub(crate) const BULK_BATCHES: usize = 8;

/// Requests of the urgent queue: as many CPUs may wait for a page at once without waiting for
/// each other.
const URGENT_REQUESTS: usize = 32;
/// Jobs that are submitted at once; others wait until the device has accepted one.
const JOB_REQUESTS: usize = 8;
/// Descriptors of a request: what the device reads and what it writes.
const CHAIN_DESCRIPTORS: usize = 2;
/// Time-outs in a row after which the device is given up.
pub(super) const STRIKES: u32 = 3;

/// Which queue a batch goes to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// A CPU waits.
    Urgent,
    /// Everything else.
    Bulk,
}

impl Lane {
    /// The lane for what moves because of `trigger`.
    pub(super) fn of(trigger: Trigger) -> Self {
        match trigger {
            Trigger::CpuFault => Self::Urgent,
            Trigger::User
            | Trigger::Prefetch
            | Trigger::Eviction
            | Trigger::Unbind
            | Trigger::DeviceFault => Self::Bulk,
        }
    }
}

/// The device answers.
pub(super) const RUNNING: u32 = 0;
/// The device did not answer and is being started anew.
pub(super) const RECOVERING: u32 = 1;
/// The device is given up, or gone.
pub(super) const DEAD: u32 = 2;

/// Contents that a device is to have kept for this driver.
#[derive(Clone, Copy)]
pub(crate) struct Adoption {
    /// Their generation.
    pub(crate) generation: u64,
    /// What proves that they are the driver's; `None` if the device knew of no keys.
    pub(crate) key: Option<SessionKey>,
    /// What [`Link::resets`] begins with: more than the number of any earlier link to them, so that nothing that the
    /// device was told then counts as told now.
    pub(crate) resets: u32,
}

/// A virtio device.
#[pin_data]
pub(crate) struct Link {
    // Dropped, hence reset, before the requests go.
    #[pin]
    pub(super) queues: Virtqueues,
    #[pin]
    pub(super) control: Control,
    #[pin]
    urgent: RequestPool,
    #[pin]
    bulk: RequestPool,
    #[pin]
    pub(super) mmu: Mmu,
    /// Asks about contexts, apart from what recovery asks.
    #[pin]
    pub(super) contexts: Control,
    /// Asks which blocks jobs accessed.
    #[pin]
    pub(super) access_bits: Control,
    #[pin]
    pub(super) submissions: RequestPool,
    #[pin]
    pub(super) repairs: Repairs,
    #[pin]
    pub(super) events: Events,
    #[pin]
    pub(super) recovery: Mutex<()>,
    pub(super) state: Atomic<u32>,
    pub(super) strikes: Atomic<u32>,
    /// Counts the starts of the device.
    pub(super) epoch: Atomic<u32>,
    stopping: AtomicFlag,
    cookie: Atomic<u64>,
    next_bulk: Atomic<u32>,
    generation: Atomic<u64>,
    /// The generation of the contents that the device is to have, if it is to have any.
    adopts: Option<u64>,
    /// Is told when the device is given up.
    pub(super) loss: Arc<Loss>,
    /// Whether a device that does not answer is started anew.
    pub(super) may_restart: bool,
    /// Proves to the device that its contents belong to this driver; `None` if it knows of no keys.
    /// Never logged.
    key: Option<SessionKey>,
    limits: Limits,
    jobs: Option<JobLimits>,
    next_job_queue: Atomic<u32>,
    features: Features,
    uuid: [u8; 16],
    version_minor: u16,
    pub(super) timeout: Delta,
    pub(super) stats: Arc<Stats>,
}

impl Link {
    /// Starts the device. It executes batches once a session is open. `loss` is told when it is given up.
    ///
    /// # Errors
    ///
    /// `ENODEV` what the device publishes makes no sense or it lacks a feature (the log says what),
    /// `ENOMEM`, `ERESTARTSYS` a signal came; what the transport reports.
    pub(crate) fn new<'a>(
        setup: virtio::Setup<'a>,
        timeout: Delta,
        stats: Arc<Stats>,
        loss: Arc<Loss>,
        adoption: Option<Adoption>,
    ) -> impl PinInit<Self, Error> + 'a {
        pin_init::pin_init_scope(move || {
            let vdev = setup.device();
            let (config, limits) = config::read(vdev)?;
            let features = config::features(vdev)?;
            let has_keys = features.contains(Features::SESSION_KEY);
            let key = match adoption {
                Some(adoption) => adoption.key,
                None => has_keys.then(random::secret).transpose()?,
            };
            let resets = adoption.map_or(0, |adoption| adoption.resets);

            let jobs = config::job_limits(vdev, &config, features)?;
            let names = config::queue_names(limits.bulk_queues, jobs.as_ref())?;
            // CAST: Both are small constants.
            let entries = limits.max_batch_entries.min(BATCH_ENTRIES as u32);
            let bulk_bytes = HEADER_BYTES + PAGE_LIST_BYTES + entries as usize * ENTRY_BYTES;
            let urgent_entries = limits.max_urgent_entries.min(URGENT_ENTRIES as u32);
            let urgent_bytes =
                HEADER_BYTES + PAGE_LIST_BYTES + urgent_entries as usize * ENTRY_BYTES;

            Ok(try_pin_init!(Self {
                queues <- Virtqueues::new(setup, names, resets),
                control <- Control::new(CONTROL_BYTES),
                urgent <- request_pool(
                    URGENT_REQUESTS,
                    urgent_bytes,
                    COMPLETION_BYTES + status_array_bytes(urgent_entries),
                ),
                bulk <- request_pool(
                    BULK_BATCHES,
                    bulk_bytes,
                    COMPLETION_BYTES + status_array_bytes(entries),
                ),
                mmu <- Mmu::new(jobs.as_ref()),
                contexts <- Control::new(CONTROL_BYTES),
                access_bits <- Control::new(Question::AccessBits(0).reply_bytes()),
                submissions <- request_pool(JOB_REQUESTS, JOB_BYTES, COMPLETION_BYTES),
                repairs <- Repairs::new(),
                events <- Events::new(),
                recovery <- new_mutex!((), "Link::recovery"),
                state: Atomic::new(RUNNING),
                strikes: Atomic::new(0),
                epoch: Atomic::new(0),
                stopping: AtomicFlag::new(false),
                cookie: Atomic::new(1),
                next_bulk: Atomic::new(0),
                generation: Atomic::new(0),
                adopts: adoption.map(|adoption| adoption.generation),
                loss,
                may_restart: *crate::module_parameters::restart.value_ref() != 0,
                key,
                limits,
                jobs,
                next_job_queue: Atomic::new(0),
                features,
                uuid: config.uuid,
                version_minor: config.version_minor.get(),
                timeout,
                stats,
            }? Error))
        })
    }

    /// Opens a session. The device discards all its memory, unless it is to have contents.
    ///
    /// # Errors
    ///
    /// `EIO` the device refuses, or does not have those contents, `ETIMEDOUT` it does not answer, `ENODEV` its queues are too small.
    pub(crate) fn open(&self) -> Result {
        let (urgent, requests) = self.lane(Lane::Urgent)?;
        requests.limit(urgent.descriptors() / CHAIN_DESCRIPTORS);
        let (bulk, _) = self.lane(Lane::Bulk)?;
        if bulk.descriptors() < BULK_BATCHES * CHAIN_DESCRIPTORS {
            error_limited!(
                self.device(),
                "queues of {} descriptors; {} are needed\n",
                bulk.descriptors(),
                BULK_BATCHES * CHAIN_DESCRIPTORS
            );
            return Err(ENODEV);
        }
        self.limit_contexts()?;
        self.open_session(self.adopts)
    }

    /// Checks that the queues of contexts and jobs hold as many requests as there are.
    fn limit_contexts(&self) -> Result {
        if self.jobs.is_none() {
            return Ok(());
        }
        let needed = [
            (self.mmu_queue()?, MMU_REQUESTS * CHAIN_DESCRIPTORS),
            (self.job_queue()?, JOB_REQUESTS * CHAIN_DESCRIPTORS),
            (self.report_queue()?, 1),
        ];
        for (queue, needed) in needed {
            if queue.descriptors() < needed {
                error_limited!(
                    self.device(),
                    "queue {} has {} descriptors; {} are needed\n",
                    queue.index(),
                    queue.descriptors(),
                    needed
                );
                return Err(ENODEV);
            }
        }
        Ok(())
    }

    /// What the device publishes.
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What bounds contexts and jobs; `None` if the device has no contexts.
    pub(crate) fn jobs(&self) -> Option<&JobLimits> {
        self.jobs.as_ref()
    }

    /// Whether jobs can access system memory, which they do at any time.
    pub(crate) fn can_share(&self) -> bool {
        self.jobs.is_some() && self.mmu_queue().is_ok_and(Queue::can_share)
    }

    /// Where jobs find the page with a number.
    ///
    /// # Errors
    ///
    /// `ENOMEM` the device does not reach the page, `ENODEV` there is no device.
    pub(crate) fn shared_address(&self, pfn: usize) -> Result<u64> {
        self.mmu_queue()?.shared_address(pfn)
    }

    /// How long the device may take to answer.
    pub(crate) fn timeout(&self) -> Delta {
        self.timeout
    }

    /// How often the device was started.
    pub(super) fn epoch(&self) -> u32 {
        self.epoch.load(Relaxed)
    }

    /// How often the device was reset. A context exists only until the next time.
    pub(crate) fn resets(&self) -> u32 {
        self.queues.resets()
    }

    /// The negotiated device features.
    pub(crate) fn features(&self) -> Features {
        self.features
    }

    /// What must be the same when the device comes back.
    pub(crate) fn shape(&self) -> Shape {
        Shape {
            memory_bytes: self.limits.memory_bytes,
            version_minor: self.version_minor,
            features: self.features,
        }
    }

    /// The identity of device memory.
    pub(crate) fn uuid(&self) -> [u8; 16] {
        self.uuid
    }

    /// The key with which the contents of device memory can be adopted, if the device knows of keys.
    pub(crate) fn key(&self) -> Option<SessionKey> {
        self.key
    }

    /// The generation of the contents of device memory.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Relaxed)
    }

    /// Entries that a batch may have.
    pub(crate) fn max_entries(&self, lane: Lane) -> usize {
        match lane {
            Lane::Urgent => URGENT_ENTRIES.min(self.limits.max_urgent_entries as usize),
            Lane::Bulk => BATCH_ENTRIES.min(self.limits.max_batch_entries as usize),
        }
    }

    /// Bytes that a batch may copy.
    pub(crate) fn max_batch_bytes(&self) -> u64 {
        self.limits.max_batch_bytes
    }

    /// Whether the device is given up, or gone.
    pub(crate) fn is_dead(&self) -> bool {
        self.state.load(Acquire) == DEAD
    }

    /// Whether the device is being started anew, or is stopped for a while.
    pub(crate) fn is_recovering(&self) -> bool {
        self.state.load(Acquire) == RECOVERING
    }

    /// The link's counters.
    pub(crate) fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Asks long requests to come to an end.
    pub(crate) fn ask_to_stop(&self) {
        self.stopping.store(true, Relaxed);
    }

    /// Whether nothing more is to be moved to the device.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Relaxed) || self.is_dead()
    }

    /// The device, for the log and for trace events.
    pub(crate) fn device(&self) -> &virtio::Device {
        self.queues.device()
    }

    /// Stops the device for good. All requests come back; new ones are refused.
    pub(crate) fn shut_down(&self) {
        self.state.store(DEAD, Release);
        self.queues.stop();
        self.events.take_back(self);
    }

    fn queue(&self, index: u16) -> Result<&Queue> {
        self.queues.get(index).ok_or(ENODEV)
    }

    /// The queue for the next batch on `lane`, and the requests that it uses.
    pub(super) fn lane(&self, lane: Lane) -> Result<(&Queue, &RequestPool)> {
        match lane {
            Lane::Urgent => Ok((self.queue(URGENT_QUEUE)?, &self.urgent)),
            Lane::Bulk => {
                let turn = self.next_bulk.fetch_add(1, Relaxed) % self.limits.bulk_queues;
                // CAST: There are at most 16 bulk queues.
                Ok((self.queue(BULK_QUEUE_FIRST + turn as u16)?, &self.bulk))
            }
        }
    }

    pub(super) fn next_cookie(&self) -> u64 {
        self.cookie.fetch_add(1, Relaxed)
    }

    /// Opens a session: a new one, or one that adopts the contents of a generation.
    pub(super) fn open_session(&self, adopt: Option<u64>) -> Result {
        let question = Question::OpenSession {
            adopt,
            key: self.key,
        };
        let reply = self.control.ask(self, question)?;
        if reply.status != Status::Ok.to_wire() {
            error_limited!(
                self.device(),
                "the device refused to open a session: {}\n",
                Status::from_wire(reply.status).map_or("unknown status", Status::name)
            );
            return Err(EIO);
        }
        if adopt.is_some_and(|generation| generation != reply.generation.get()) {
            error_limited!(
                self.device(),
                "the device adopted another generation than it was asked to\n"
            );
            return Err(EIO);
        }
        self.generation.store(reply.generation.get(), Relaxed);
        self.events.post(self)
    }

    /// A batch was answered.
    pub(super) fn answered(&self) {
        self.strikes.store(0, Relaxed);
    }

    pub(super) fn control_queue(&self) -> Result<&Queue> {
        self.queue(CONTROL_QUEUE)
    }

    pub(super) fn mmu_queue(&self) -> Result<&Queue> {
        self.queue(mmu_queue(self.bulk_queues()))
    }

    pub(super) fn report_queue(&self) -> Result<&Queue> {
        self.queue(report_queue(self.bulk_queues()))
    }

    /// The queue for the next job.
    pub(super) fn job_queue(&self) -> Result<&Queue> {
        let jobs = self.jobs.as_ref().ok_or(EOPNOTSUPP)?;
        let turn = self.next_job_queue.fetch_add(1, Relaxed) % jobs.job_queues;
        // CAST: There are at most 16 job queues.
        self.queue(job_queue_first(self.bulk_queues()) + turn as u16)
    }

    fn bulk_queues(&self) -> u16 {
        // CAST: There are at most 16 bulk queues.
        self.limits.bulk_queues as u16
    }

    pub(super) fn event_queue(&self) -> Result<&Queue> {
        self.queue(EVENT_QUEUE)
    }
}
