// SPDX-License-Identifier: GPL-2.0-only

//! Opens `/dev/hmmN`, and passes its ioctls on.

use super::{
    argument::Argument,
    call::{
        Call,
        OpenSession, //
    },
    fdinfo,
    info,
    job,
    jobs::OpenJobs,
    policy,
    prefetch::Prefetches,
    residency,
    state::Session, //
};
use crate::{
    device::Device,
    loss::Presence,
    sys::{
        address_space::process::Process,
        services::{
            node::{
                Handler,
                Readiness, //
            },
            signal::signal_waits, //
        }, //
    }, //
};
use hmm_uapi::{
    ADVISE_FIRST_BYTES,
    ADVISE_NR,
    EVICT_NR,
    INFO_NR,
    IOCTL_TYPE,
    JOB_NR,
    JOB_WAIT_NR,
    LIMIT_NR,
    MIGRATE_NR,
    PREFETCH_NR,
    RESIDENCY_NR,
    STATS_NR,
    WAIT_NR, //
};
use kernel::{
    ioctl::{
        _IOC_DIR,
        _IOC_NR,
        _IOC_TYPE, //
    },
    prelude::*,
    seq_file::SeqFile,
    sync::poll::PollCondVar,
    time::{
        delay::fsleep,
        Delta, //
    }, //
};

/// How often a call looks whether a device whose link is dead is lost, or has left.
const PAUSE: Delta = Delta::from_millis(1);

impl Handler for Session {
    type File = OpenSession;

    fn open(&self) -> Result<OpenSession> {
        // While the device is lost the node can be opened: calls wait for its return.
        if self.pool.loss().presence() == Presence::Present {
            drop(self.pool.attached().ok_or(ENODEV)?);
        }
        Ok(OpenSession {
            prefetches: KBox::pin_init(Prefetches::new(), GFP_KERNEL)?,
            jobs: KBox::pin_init(OpenJobs::new(), GFP_KERNEL)?,
            session: self.clone(),
            opener: self.pool.processes().of(Process::current()?.id()?)?,
        })
    }

    fn poll(file: &OpenSession, wait_for: &dyn Fn(&PollCondVar)) -> Readiness {
        let pool = &file.session.pool;
        wait_for(pool.loss().changed());
        match pool.loss().presence() {
            Presence::Lost => Readiness::Exception,
            Presence::Present if pool.is_attached() => Readiness::Served,
            // Unbound in order, or not back in time.
            Presence::Present | Presence::Gone => Readiness::HungUp,
        }
    }

    fn show(file: &OpenSession, out: &SeqFile) {
        fdinfo::show(file, out);
    }

    fn ioctl(file: &OpenSession, command: u32, argument: usize) -> Result<isize> {
        // Both directions: every structure is read and written.
        if _IOC_TYPE(command) != u32::from(IOCTL_TYPE) || _IOC_DIR(command) != 3 {
            return Err(ENOTTY);
        }
        // CAST: The number has 8 bits.
        let number = _IOC_NR(command) as u8;
        // What has begun can be waited for even if the device has gone meanwhile.
        match number {
            WAIT_NR => return policy::wait(file, Argument::new(command, argument)?).map(|()| 0),
            JOB_WAIT_NR => return job::wait(file, Argument::new(command, argument)?).map(|()| 0),
            _ => {}
        }
        let session = &file.session;
        let pool = &session.pool;
        // What needs no device is done also while it is lost, or when it is gone.
        if pool.loss().presence() != Presence::Present {
            match number {
                RESIDENCY_NR => {
                    let argument = Argument::new(command, argument)?;
                    return residency::residency(pool.memory(), &session.proc, argument)
                        .map(|()| 0);
                }
                STATS_NR => {
                    return info::stats(pool, Argument::new(command, argument)?).map(|()| 0);
                }
                _ => {}
            }
        }
        loop {
            let device = pool.wait_for_attached()?;
            let result = call(file, &device, command, argument);
            let is_dead = device.link().is_dead();
            drop(device);
            if result != Err(ENODEV) {
                return result.map(|()| 0);
            }
            // What a device does not do that is lost meanwhile is done again when it is back. One that is being given up, or
            // leaves in order, is told of as lost, or detached, a moment after its link is dead.
            if pool.loss().presence() == Presence::Present {
                if !is_dead || !pool.is_attached() || signal_waits() {
                    return Err(ENODEV);
                }
                fsleep(PAUSE);
            }
        }
    }
}

/// An ioctl that needs the device.
fn call(file: &OpenSession, device: &Device, command: u32, argument: usize) -> Result {
    let session = &file.session;
    let call = Call {
        device,
        proc: &session.proc,
    };
    // CAST: The number has 8 bits.
    match _IOC_NR(command) as u8 {
        INFO_NR => call.info(Argument::new(command, argument)?),
        MIGRATE_NR => call.migrate(Argument::new(command, argument)?),
        RESIDENCY_NR => residency::residency(
            device.memory(),
            &session.proc,
            Argument::new(command, argument)?,
        ),
        STATS_NR => info::stats(device.pool(), Argument::new(command, argument)?),
        ADVISE_NR => call.advise(Argument::grown(command, argument, ADVISE_FIRST_BYTES)?),
        PREFETCH_NR => call.prefetch(file, Argument::new(command, argument)?),
        EVICT_NR => call.evict(Argument::new(command, argument)?),
        LIMIT_NR => call.limit(Argument::new(command, argument)?),
        JOB_NR => call.job(file, Argument::new(command, argument)?),
        _ => Err(ENOTTY),
    }
}
