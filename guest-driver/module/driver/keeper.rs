// SPDX-License-Identifier: GPL-2.0-only

//! Keeps what outlives its device, and looks after it.

use super::instance::Instance;
use crate::{
    loss::Wakeup,
    sys::services::{
        global::Global,
        workqueue::WorkQueue, //
    }, //
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    }, //
};

/// How often lost devices are looked at, milliseconds.
const LOOK_MS: u32 = 100;

/// All instances of the module; for the probe of a device.
static INSTANCES: Global<Arc<Instances>> = Global::new();

/// The instances that there are.
#[pin_data]
pub(super) struct Instances {
    #[pin]
    list: Mutex<KVec<Arc<Instance>>>,
    wakeup: Arc<Wakeup>,
}

impl Instances {
    /// Those of the module.
    ///
    /// # Errors
    ///
    /// `ENODEV`: the module is going.
    pub(super) fn of_module() -> Result<Arc<Self>> {
        INSTANCES.get().ok_or(ENODEV)
    }

    /// What wakes the thread that looks after them.
    pub(super) fn wakeup(&self) -> &Arc<Wakeup> {
        &self.wakeup
    }

    /// Adds an instance.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn add(&self, instance: Arc<Instance>) -> Result {
        Ok(self.list.lock().push(instance, GFP_KERNEL)?)
    }

    /// Removes an instance.
    pub(super) fn remove(&self, instance: &Arc<Instance>) {
        let mut list = self.list.lock();
        let index = list.iter().position(|other| Arc::ptr_eq(other, instance));
        let removed = index.and_then(|index| list.remove(index).ok());
        drop(list);
        drop(removed);
    }

    /// The instance whose device with this uuid is lost. It counts as bound from now on.
    pub(super) fn take_lost(&self, uuid: &[u8; 16]) -> Option<Arc<Instance>> {
        let list = self.list.lock();
        (list.iter())
            .find(|instance| instance.pool().identity().uuid == *uuid && instance.try_bind())
            .cloned()
    }

    fn get(&self, index: usize) -> Option<Arc<Instance>> {
        self.list.lock().get(index).cloned()
    }

    /// Looks after each instance once. Returns whether that is needed again soon.
    fn look_after(&self) -> bool {
        let (mut index, mut again) = (0, false);
        while let Some(instance) = self.get(index) {
            instance.look_after();
            if instance.is_over() {
                self.remove(&instance);
                continue;
            }
            again |= instance.needs_care();
            index += 1;
        }
        again
    }

    fn serve(&self) {
        let mut needs_care = false;
        while self.wakeup.wait(needs_care.then_some(LOOK_MS)) {
            needs_care = self.look_after();
        }
    }
}

/// The thread that looks after the instances. Dropping it ends all of them; no device is bound any more then.
pub(super) struct Keeper {
    instances: Arc<Instances>,
    /// `None` only while it is dropped.
    queue: Option<WorkQueue>,
}

impl Keeper {
    /// Begins the thread.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new() -> Result<Self> {
        let wakeup = Arc::pin_init(Wakeup::new(), GFP_KERNEL)?;
        let instances: Arc<Instances> = Arc::pin_init(
            pin_init!(Instances {
                list <- new_mutex!(KVec::new(), "driver::Instances::list"),
                wakeup,
            }),
            GFP_KERNEL,
        )?;
        let queue = WorkQueue::new(c"virtio_hmm_keeper")?;
        let served = instances.clone();
        queue.spawn(move || served.serve())?;
        INSTANCES.set(Some(instances.clone()));
        Ok(Self {
            instances,
            queue: Some(queue),
        })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        INSTANCES.set(None);
        self.instances.wakeup.end();
        self.queue = None;
        while let Some(instance) = self.instances.get(0) {
            // None of its pages is in use, or the module could not go.
            instance.pool().loss().expire();
            instance.look_after();
            self.instances.remove(&instance);
        }
    }
}
