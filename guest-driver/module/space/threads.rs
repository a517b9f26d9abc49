// SPDX-License-Identifier: GPL-2.0-only

//! The threads that a device with contexts has: one hears its reports, and one starts it anew for those that must
//! not wait for that.

use crate::{
    contexts::{
        DeviceFault,
        JobEnd, //
    },
    device::Device,
    link::{
        Reports,
        Told, //
    },
    sys::services::{
        trace::{
            self,
            JobEndEvent, //
        },
        workqueue::WorkQueue, //
    }, //
};
use hmm_protocol::{
    FaultAccess,
    Report,
    ReportKind,
    Status, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// The threads. Dropping it stops the device for good, and waits for them.
pub(crate) struct ContextThreads {
    device: Arc<Device>,
    /// `None` only while it is dropped.
    queue: Option<WorkQueue>,
}

impl ContextThreads {
    /// Begins the threads, if the device has contexts.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(device: Arc<Device>) -> Result<Self> {
        let queue = WorkQueue::new(c"virtio_hmm_contexts")?;
        let this = Self {
            device,
            queue: Some(queue),
        };
        if this.device.link().jobs().is_some() {
            let reports = Reports::new()?;
            this.spawn(|device| device.link().serve_repairs())?;
            this.spawn(move |device| listen(device, reports))?;
        }
        Ok(this)
    }

    fn spawn(&self, work: impl FnOnce(&Device) + Send + 'static) -> Result {
        let device = self.device.clone();
        match &self.queue {
            Some(queue) => queue.spawn(move || work(&device)),
            None => Err(ENODEV),
        }
    }
}

impl Drop for ContextThreads {
    fn drop(&mut self) {
        let link = self.device.link();
        link.shut_down();
        link.end_repairs();
        // Waits for them. The device is this object's, too, so none of them drops it.
        self.queue = None;
    }
}

/// Hears reports until the device is gone.
fn listen(device: &Device, mut reports: Reports) {
    let jobs = &device.contexts().jobs;
    let mut resets = device.link().resets();
    loop {
        let told = reports.next(device.link());
        let now = device.link().resets();
        if now != resets {
            resets = now;
            jobs.finish_before(resets, Status::Cancelled);
        }
        match told {
            Told::Report(report) => hear(device, &report),
            Told::Nothing => {}
            Told::Quiet if jobs.is_empty() => {}
            Told::Quiet => device.link().expect_session(),
            Told::Ended => break,
        }
    }
    // Nothing is begun any more, and all that was has ended with the device.
    jobs.finish_all(Status::Cancelled);
}

fn hear(device: &Device, report: &Report) {
    let is_sensible = match ReportKind::from_wire(report.kind) {
        Some(ReportKind::Fault) => {
            fault(device, report);
            true
        }
        Some(ReportKind::JobEnd) => match JobEnd::reported(report) {
            Some(end) => {
                let event = JobEndEvent {
                    context: report.context.get(),
                    cookie: report.cookie.get(),
                    status: end.status.name(),
                    address: end.address,
                    amount: end.amount,
                    faults: end.faults,
                    device_ns: end.device_ns,
                };
                trace::job_end(device.vdev(), &event);
                let failed = end.status != Status::Ok;
                // One that was cancelled with its context has ended before.
                if device.contexts().jobs.finish(report.cookie.get(), end) && failed {
                    device.stats().contexts.jobs_failed.add(1);
                }
                true
            }
            None => false,
        },
        // A later version of the format may have more.
        None => true,
    };
    if !is_sensible {
        device.stats().protocol_errors.add(1);
    }
}

/// Lets a worker serve a device fault.
fn fault(device: &Device, report: &Report) {
    let contexts = device.contexts();
    // A context that has ended has no jobs any more.
    let Some(owner) = contexts.numbers.get(report.context.get()) else {
        return;
    };
    let fault = DeviceFault {
        number: report.value.get(),
        address: report.address.get(),
        access: FaultAccess(report.status),
        bytes: report.amount.get(),
    };
    let worker = owner.clone();
    if contexts.workers.spawn(move || worker.serve(fault)).is_err() {
        owner.serve(fault);
    }
}
