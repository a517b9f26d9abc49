// SPDX-License-Identifier: GPL-2.0-only

//! The pool as a whole, and what the kernel reaches of it through a struct page.

use super::{
    attachment::{
        Attached,
        Attachment,
        FaultServer, //
    },
    Pages, //
};
use crate::{
    loss::{
        Loss,
        Presence, //
    },
    policy::{
        Processes,
        Spaces, //
    },
    stats::Stats,
    sys::{
        device_memory::pagemap::{
            Fault,
            FaultError,
            Operations,
            PrivateMemory, //
        },
        services::process_id::ForkWatch, //
    }, //
};
use core::ops::Range;
use hmm_protocol::SessionKey;
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// How long a task that touched a page of a lost device sleeps before it tries again, milliseconds.
const NAP_MS: u32 = 20;

/// Which contents the memory has. A device with other contents must not serve its pages.
///
/// The pool keeps it while no device is attached, so that the next one can be asked to adopt them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Of the memory.
    pub(crate) uuid: [u8; 16],
    /// Of the contents.
    pub(crate) generation: u64,
    /// With which the contents can be adopted, if the device knows of keys.
    pub(crate) key: Option<SessionKey>,
}

/// The memory of a device of type `D`: the pagemap, the records of its pages, the processes that
/// have pages there, and the identity of the contents.
///
/// It outlives the device. Dropping it waits until every page is free.
#[pin_data]
pub(crate) struct Pool<D: FaultServer> {
    // Dropped first: waits for the pages, whose records must be there until then.
    #[pin]
    memory: PrivateMemory<PagemapOps<D>>,
    #[pin]
    spaces: Spaces,
    processes: Arc<Processes>,
    /// Has children inherit limits; `None` if the kernel does not tell of them.
    fork_watch: Option<ForkWatch<Processes>>,
    pages: Arc<Pages>,
    attachment: Arc<Attachment<D>>,
    loss: Arc<Loss>,
    stats: Arc<Stats>,
    identity: Identity,
}

impl<D: FaultServer> Pool<D> {
    /// A parked pool of `pages` free pages. CPU faults are counted in `stats`, and `loss` says whether there is a
    /// device for them.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, or `ERANGE` if the physical address space has no room.
    pub(crate) fn new(
        pages: usize,
        identity: Identity,
        stats: Arc<Stats>,
        loss: Arc<Loss>,
    ) -> Result<Arc<Self>> {
        let records = Arc::new(Pages::new(pages)?, GFP_KERNEL)?;
        let attachment = Attachment::new()?;
        let processes = Processes::new(records.accounts().clone());
        let processes = Arc::pin_init(processes, GFP_KERNEL)?;
        let fork_watch = match ForkWatch::new(processes.clone()) {
            Ok(watch) => Some(watch),
            Err(error) if error == EOPNOTSUPP => None,
            Err(error) => return Err(error),
        };
        let ops = PagemapOps {
            pages: records.clone(),
            attachment: attachment.clone(),
            loss: loss.clone(),
            stats: stats.clone(),
        };
        Arc::pin_init(
            try_pin_init!(Self {
                memory <- PrivateMemory::new(pages, c"virtio_hmm", ops),
                spaces <- Spaces::new(attachment.clone()),
                processes,
                fork_watch,
                pages: records,
                attachment,
                loss,
                stats,
                identity,
            }? Error),
            GFP_KERNEL,
        )
    }

    /// The pagemap.
    pub(crate) fn memory(&self) -> &PrivateMemory<PagemapOps<D>> {
        &self.memory
    }

    /// The records of the pages.
    pub(crate) fn pages(&self) -> &Pages {
        &self.pages
    }

    /// The address spaces whose memory is moved.
    pub(crate) fn spaces(&self) -> &Spaces {
        &self.spaces
    }

    /// The processes that have device memory, or a limit.
    pub(crate) fn processes(&self) -> &Processes {
        &self.processes
    }

    /// Whether processes can have limits, which their children must inherit.
    pub(crate) fn has_limits(&self) -> bool {
        self.fork_watch.is_some()
    }

    /// Which contents the memory has.
    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    /// Whether there is a device.
    pub(crate) fn loss(&self) -> &Loss {
        &self.loss
    }

    /// The same, for another that keeps it.
    pub(crate) fn shared_loss(&self) -> &Arc<Loss> {
        &self.loss
    }

    /// The counters.
    pub(crate) fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Attaches a device whose memory has these contents. From now on requests and CPU faults reach
    /// it.
    ///
    /// # Errors
    ///
    /// `ESTALE` its contents are others, `EBUSY` a device is attached.
    pub(crate) fn attach(&self, device: Arc<D>, identity: Identity) -> Result {
        if identity != self.identity {
            return Err(ESTALE);
        }
        self.attachment.attach(device)
    }

    /// Refuses requests from now on, and waits for those under way. CPU faults still reach the
    /// device.
    pub(crate) fn drain(&self) {
        self.attachment.drain();
    }

    /// Detaches `device`, if it is attached, and waits for the faults that it serves. The pool is
    /// parked then: its pages stay, and a CPU that touches one waits until [`Loss`] says that the device is back
    /// or gone.
    pub(crate) fn detach(&self, device: &Arc<D>) {
        self.attachment.detach(device);
    }

    /// The attached device, for a change of an address space that it mirrors; `None` if there is none. Also
    /// one that is being drained is found.
    pub(crate) fn attached_for_change(&self) -> Option<Attached<'_, D>> {
        self.attachment.for_fault()
    }

    /// Whether requests reach a device.
    pub(crate) fn is_attached(&self) -> bool {
        self.attached().is_some()
    }

    /// The attached device, for a call of a user. Waits while the device is lost.
    ///
    /// # Errors
    ///
    /// `ENODEV` it is gone, or going; `ERESTARTSYS` a signal came before.
    pub(crate) fn wait_for_attached(&self) -> Result<Attached<'_, D>> {
        loop {
            match self.loss.presence() {
                Presence::Present => match self.attached() {
                    Some(device) => return Ok(device),
                    // It has been lost meanwhile, or it goes in order.
                    None if self.loss.presence() == Presence::Present => return Err(ENODEV),
                    None => {}
                },
                Presence::Lost => {
                    self.stats.loss.call_waits.add(1);
                    self.loss.wait_while_lost()?;
                }
                Presence::Gone => return Err(ENODEV),
            }
        }
    }

    /// The attached device, for a request; `None` if there is none, or it is being drained.
    pub(crate) fn attached(&self) -> Option<Attached<'_, D>> {
        self.attachment.for_request()
    }
}

/// The operations of the pagemap. They only refer to what they need, so that neither pagemap nor
/// device owns the other.
pub(crate) struct PagemapOps<D> {
    pages: Arc<Pages>,
    attachment: Arc<Attachment<D>>,
    loss: Arc<Loss>,
    stats: Arc<Stats>,
}

impl<D: FaultServer> PagemapOps<D> {
    /// Has the device serve the fault, if there is one.
    fn serve(&self, fault: &Fault<'_>) -> Result<(), FaultError> {
        if self.loss.presence() != Presence::Present {
            return Err(FaultError::NoDevice);
        }
        match self.attachment.for_fault() {
            Some(device) => device.serve(fault),
            None => Err(FaultError::NoDevice),
        }
    }
}

impl<D: FaultServer> Operations for PagemapOps<D> {
    fn migrate_to_ram(memory: &PrivateMemory<Self>, fault: &Fault<'_>) -> Result<(), FaultError> {
        kernel::task::might_sleep();
        let this = memory.ops();
        match this.serve(fault) {
            Err(FaultError::NoDevice) => {}
            served => return served,
        }
        // The contents are on a device that is not there. The CPU tries again after a while, until it is back or gone.
        // Each sleep is short, so that tasks that need the mmap lock for writing do not wait for the device.
        this.loss.expire_if_overdue();
        if this.loss.presence() == Presence::Gone {
            this.stats.cpu_faults.add(1);
            this.stats.cpu_faults_failed.add(1);
            return Err(FaultError::Poisoned);
        }
        this.stats.loss.fault_waits.add(1);
        match fault.nap(NAP_MS) {
            true => Ok(()),
            false => Err(FaultError::Lost),
        }
    }

    fn pages_freed(&self, indices: Range<usize>) {
        self.pages.free(indices);
    }
}

#[kunit_tests(virtio_hmm_pool)]
mod tests {
    use super::*;
    use crate::{
        loss::Wakeup,
        pool::{
            AccountId,
            Allocation, //
        },
        sys::{
            address_space::tracking::KeptTables,
            device_memory::placement::Placement, //
        }, //
    };
    use hmm_logic::BLOCK_PAGES;
    use kernel::{
        page::PAGE_SIZE,
        time::Delta, //
    };

    const IDENTITY: Identity = Identity {
        uuid: [1; 16],
        generation: 7,
        key: Some([3; 16]),
    };

    /// A device without queues, known by its number.
    struct TestDevice(u32);

    impl FaultServer for TestDevice {
        fn serve(&self, _fault: &Fault<'_>) -> Result<(), FaultError> {
            Err(FaultError::Lost)
        }

        fn bring_back(&self, _tables: KeptTables<'_>, _placement: Option<Placement>) {}
    }

    fn pool() -> Result<Arc<Pool<TestDevice>>> {
        let stats = Arc::new(Stats::new()?, GFP_KERNEL)?;
        let keeper = Arc::pin_init(Wakeup::new(), GFP_KERNEL)?;
        let loss = Loss::new(Delta::from_millis(1_000), keeper)?;
        Pool::new(BLOCK_PAGES, IDENTITY, stats, loss)
    }

    fn device(number: u32) -> Result<Arc<TestDevice>> {
        Ok(Arc::new(TestDevice(number), GFP_KERNEL)?)
    }

    fn attach(pool: &Pool<TestDevice>, number: u32, identity: Identity) -> Result {
        pool.attach(device(number)?, identity)
    }

    #[test]
    fn a_new_pool_is_parked() -> Result {
        let pool = pool()?;
        assert!(pool.attached().is_none());
        assert!(pool.attachment.for_fault().is_none());
        pool.drain();
        pool.detach(&device(1)?);
        attach(&pool, 1, IDENTITY)?;
        assert!(pool.attached().is_some_and(|device| device.0 == 1));
        Ok(())
    }

    #[test]
    fn only_faults_reach_a_device_that_is_drained() -> Result {
        let pool = pool()?;
        let first = device(1)?;
        pool.attach(first.clone(), IDENTITY)?;
        assert_eq!(attach(&pool, 2, IDENTITY).err(), Some(EBUSY));
        pool.drain();
        assert!(pool.attached().is_none());
        assert!(pool
            .attachment
            .for_fault()
            .is_some_and(|device| device.0 == 1));
        assert_eq!(attach(&pool, 2, IDENTITY).err(), Some(EBUSY));
        // Only the device that is there can be detached.
        pool.detach(&device(2)?);
        assert!(pool.attachment.for_fault().is_some());
        pool.detach(&first);
        assert!(pool.attachment.for_fault().is_none());
        Ok(())
    }

    #[test]
    fn a_parked_pool_keeps_its_pages_for_the_next_device() -> Result {
        let pool = pool()?;
        let first = device(1)?;
        pool.attach(first.clone(), IDENTITY)?;
        let ticket = pool.pages().ticket();
        let mut allocation = Allocation::new(&*pool, 1, ticket, AccountId::NONE).ok_or(ENOMEM)?;
        let page = allocation.next().ok_or(ENOMEM)?;
        drop(allocation);
        pool.detach(&first);
        assert_eq!(pool.pages().resident_bytes(), PAGE_SIZE as u64);
        attach(&pool, 2, IDENTITY)?;
        assert!(pool.attached().is_some_and(|device| device.0 == 2));
        assert_eq!(pool.pages().resident_bytes(), PAGE_SIZE as u64);
        drop(page);
        assert_eq!(pool.pages().resident_bytes(), 0);
        Ok(())
    }

    #[test]
    fn a_device_with_other_contents_is_refused() -> Result {
        let pool = pool()?;
        let later = Identity {
            generation: IDENTITY.generation + 1,
            ..IDENTITY
        };
        let other = Identity {
            uuid: [2; 16],
            ..IDENTITY
        };
        assert_eq!(attach(&pool, 1, later).err(), Some(ESTALE));
        assert_eq!(attach(&pool, 1, other).err(), Some(ESTALE));
        let without_key = Identity {
            key: None,
            ..IDENTITY
        };
        assert_eq!(attach(&pool, 1, without_key).err(), Some(ESTALE));
        assert!(pool.attached().is_none());
        attach(&pool, 1, IDENTITY)
    }
}
