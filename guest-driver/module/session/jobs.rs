// SPDX-License-Identifier: GPL-2.0-only

//! The jobs that an open file has begun, and the address spaces that they work on.

use crate::{
    contexts::Job,
    device::Device,
    space::Space,
    sys::address_space::process::Process, //
};
use kernel::{
    mm::{
        Mm,
        MmWithUser, //
    },
    new_mutex,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            ordering::Relaxed,
            AtomicFlag, //
        },
        Arc,
        Mutex, //
    }, //
};

/// Address spaces that one open file may work on at once.
const SPACES: usize = 64;

/// An address space, and what the device has of it.
#[derive(Clone)]
struct SpaceEntry {
    mm: ARef<Mm>,
    space: Arc<Space>,
}

/// A job that was begun.
pub(super) struct BegunJob {
    job: Arc<Job>,
    space: Arc<Space>,
    mm: ARef<Mm>,
    cancelled: AtomicFlag,
}

impl BegunJob {
    pub(super) fn job(&self) -> &Job {
        &self.job
    }

    /// Asks the device to end it.
    pub(super) fn cancel(&self) {
        self.cancelled.store(true, Relaxed);
        self.space.cancel(&self.job);
    }

    /// Whether the file's user asked for its end.
    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Relaxed)
    }

    /// Whether the memory that it works on has gone: the process has exited or executes another program.
    pub(super) fn has_lost_memory(&self) -> bool {
        self.mm.mmget_not_zero().is_none()
    }
}

/// The jobs of an open file by their ids. Dropping them ends them.
#[pin_data]
pub(super) struct OpenJobs {
    #[pin]
    list: Mutex<List>,
    #[pin]
    spaces: Mutex<KVec<SpaceEntry>>,
}

struct List {
    last: u64,
    /// Jobs that are being submitted.
    coming: usize,
    begun: KVVec<(u64, Arc<BegunJob>)>,
}

impl OpenJobs {
    pub(super) fn new() -> impl PinInit<Self> {
        let list = List {
            last: 0,
            coming: 0,
            begun: KVVec::new(),
        };
        pin_init!(Self {
            list <- new_mutex!(list, "session::OpenJobs::list"),
            spaces <- new_mutex!(KVec::new(), "session::OpenJobs::spaces"),
        })
    }

    /// Begins a job on the memory of `process` with `run`, if there is room for one more. Returns its id.
    ///
    /// # Errors
    ///
    /// `EAGAIN` there are as many as there may be, or those of `Space::new()` and `run`.
    pub(super) fn begin(
        &self,
        device: &Device,
        process: &Process,
        run: impl FnOnce(&Space) -> Result<Arc<Job>>,
    ) -> Result<u64> {
        {
            let mut list = self.list.lock();
            if list.begun.len() + list.coming >= hmm_uapi::JOBS_MAX {
                return Err(EAGAIN);
            }
            let more = list.coming + 1;
            list.begun.reserve(more, GFP_KERNEL)?;
            list.coming = more;
        }
        // Without the lock: this waits for the device, and for the mmap lock.
        let begun = self.space(device, process).and_then(|entry| {
            let job = run(&entry.space)?;
            let begun = BegunJob {
                job: job.clone(),
                space: entry.space.clone(),
                mm: entry.mm,
                cancelled: AtomicFlag::new(false),
            };
            Arc::new(begun, GFP_KERNEL).map_err(|error| {
                // No id would be known by which it could be waited for.
                entry.space.cancel(&job);
                error.into()
            })
        });
        let mut list = self.list.lock();
        list.coming -= 1;
        let begun = begun?;
        list.last += 1;
        let id = list.last;
        list.begun
            .push_within_capacity((id, begun))
            .map_err(|_| EAGAIN)?;
        Ok(id)
    }

    /// The address space of a process on the device, which is made when there is none.
    fn space(&self, device: &Device, process: &Process) -> Result<SpaceEntry> {
        if let Some(entry) = find(&self.spaces.lock(), process.mm()) {
            return Ok(entry);
        }
        // What goes here ends its context, which waits for the device.
        drop(self.take_ended()?);
        let entry = SpaceEntry {
            mm: ARef::from(&***process.mm()),
            space: Arc::new(Space::new(device, process)?, GFP_KERNEL)?,
        };
        let mut spaces = self.spaces.lock();
        if let Some(other) = find(&spaces, process.mm()) {
            drop(spaces);
            // Another thread made one meanwhile. This one goes without the lock.
            drop(entry);
            return Ok(other);
        }
        if spaces.len() >= SPACES {
            return Err(ENOSPC);
        }
        spaces.push(entry.clone(), GFP_KERNEL)?;
        Ok(entry)
    }

    /// Takes out the address spaces that have ended.
    fn take_ended(&self) -> Result<KVec<SpaceEntry>> {
        let mut ended = KVec::with_capacity(SPACES, GFP_KERNEL)?;
        let mut spaces = self.spaces.lock();
        for entry in spaces.iter() {
            if entry.mm.mmget_not_zero().is_none() {
                ended
                    .push_within_capacity(entry.clone())
                    .map_err(|_| ENOMEM)?;
            }
        }
        spaces.retain(|entry| {
            !ended
                .iter()
                .any(|gone| gone.mm.as_raw() == entry.mm.as_raw())
        });
        drop(spaces);
        Ok(ended)
    }

    /// A job by its id.
    ///
    /// # Errors
    ///
    /// `ENOENT`: there is none.
    pub(super) fn get(&self, id: u64) -> Result<Arc<BegunJob>> {
        let list = self.list.lock();
        let begun = list.begun.iter().find(|(other, _)| *other == id);
        begun.map(|(_, begun)| begun.clone()).ok_or(ENOENT)
    }

    /// Forgets a job.
    pub(super) fn forget(&self, id: u64) {
        let mut list = self.list.lock();
        let index = list.begun.iter().position(|(other, _)| *other == id);
        let gone = index.and_then(|index| list.begun.remove(index).ok());
        drop(list);
        // The last to know a space ends its context.
        drop(gone);
    }
}

/// The entry of an address space.
fn find(spaces: &[SpaceEntry], mm: &MmWithUser) -> Option<SpaceEntry> {
    let mut spaces = spaces.iter();
    spaces
        .find(|entry| entry.mm.as_raw() == mm.as_raw())
        .cloned()
}
