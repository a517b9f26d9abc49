// SPDX-License-Identifier: GPL-2.0-only

//! Opens the nodes, and passes their ioctls on.

use super::{
    access::OnMiss,
    command::{
        Argument,
        Outcome, //
    },
    mirror_file::MirrorFile,
    pages, //
};
use crate::{
    device::DevicePool,
    sys::services::node::Handler, //
};
use hmm_uapi::{
    dmirror::{
        Command,
        CHECK_EXCLUSIVE_NR,
        EXCLUSIVE_NR,
        FLAGS_NR,
        FLAG_FAIL_ALLOC,
        IOCTL_TYPE,
        MIGRATE_TO_DEVICE_NR,
        MIGRATE_TO_SYSTEM_NR,
        READ_NR,
        READ_UNLOCKED_NR,
        RELEASE_NR,
        SNAPSHOT_NR,
        WRITE_NR, //
    },
    Direction, //
};
use kernel::{
    ioctl::{
        _IOC_NR,
        _IOWR, //
    },
    mm::virt::VmaNew,
    prelude::*,
    sync::{
        atomic::ordering::Relaxed,
        Arc, //
    }, //
};

/// What stands behind `/dev/hmm_dmirrorN`.
pub(crate) struct Dmirror(Arc<DevicePool>);

impl Dmirror {
    /// For the device that is attached to `pool`.
    pub(crate) fn new(pool: Arc<DevicePool>) -> Self {
        Self(pool)
    }
}

impl Handler for Dmirror {
    type File = MirrorFile;

    fn open(&self) -> Result<MirrorFile> {
        let device = self.0.attached().ok_or(ENODEV)?;
        MirrorFile::of_caller(&device)
    }

    fn ioctl(mirror: &MirrorFile, command: u32, argument: usize) -> Result<isize> {
        // CAST: The number has 8 bits.
        let number = _IOC_NR(command) as u8;
        let is_known = command == _IOWR::<Command>(u32::from(IOCTL_TYPE), u32::from(number));
        if !is_known {
            return Err(ENOTTY);
        }
        let argument = Argument::read(argument)?;
        let device = mirror.pool.attached().ok_or(ENODEV)?;
        let outcome = match number {
            READ_NR => mirror.read(&argument, OnMiss::Fault),
            READ_UNLOCKED_NR => mirror.read(&argument, OnMiss::FaultUnlocked),
            WRITE_NR => mirror.write(&argument),
            EXCLUSIVE_NR => mirror.exclusive(&argument),
            CHECK_EXCLUSIVE_NR => mirror.check_exclusive(argument.range()),
            MIGRATE_TO_DEVICE_NR => mirror.migrate_and_read(&device, &argument),
            MIGRATE_TO_SYSTEM_NR => mirror.migrate(&device, argument.range(), Direction::ToSystem),
            SNAPSHOT_NR => mirror.snapshot(&device, &argument),
            RELEASE_NR => mirror.release(&device),
            FLAGS_NR => mirror.set_flags(argument.pages_field()),
            _ => Err(ENOTTY),
        }?;
        argument.write(outcome)?;
        Ok(0)
    }

    fn mmap(_mirror: &MirrorFile, vma: &VmaNew) -> Result {
        pages::insert(vma)
    }
}

impl MirrorFile {
    fn set_flags(&self, flags: u64) -> Result<Outcome> {
        if flags & !FLAG_FAIL_ALLOC != 0 {
            return Err(EINVAL);
        }
        self.refuse_huge
            .store(flags & FLAG_FAIL_ALLOC != 0, Relaxed);
        Ok(Outcome::default())
    }
}
