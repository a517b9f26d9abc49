// SPDX-License-Identifier: GPL-2.0-only

//! What a device publishes, checked.

use crate::sys::virtio;
use hmm_protocol::{
    Config,
    Features,
    JobLimits,
    Limits,
    BULK_QUEUE_FIRST,
    CONFIG_BYTES, //
};
use kernel::{
    device::Bound,
    prelude::*, //
};
use zerocopy::FromBytes;

/// virtio feature bits that the driver understands: its own, and those of the transport that it
/// needs (VERSION_1 and ACCESS_PLATFORM) or likes (the ring's are added by the kernel).
pub(crate) const FEATURES: &[u32] = &[
    0,  // EVENT_QUEUE
    1,  // URGENT_QUEUE
    2,  // STATUS_ARRAY
    3,  // FILL
    4,  // DEVICE_COPY
    5,  // PAGE_LIST
    6,  // SCRUB
    7,  // DISCARD
    8,  // POLLED_COMPLETION
    9,  // SESSION_KEY
    10, // CONTEXTS
    11, // PROGRAMS
    12, // ACCESS_BITS
    23, // FAULT_INJECTION
];

/// `VIRTIO_RING_F_INDIRECT_DESC`: a chain of two descriptors, on rings with far more room than
/// requests, only loses by a table of its own, which is allocated and mapped each time.
pub(crate) const UNWANTED_FEATURES: &[u32] = &[28];

/// `VIRTIO_F_VERSION_1`.
const VERSION_1: u32 = 32;
/// `VIRTIO_F_ACCESS_PLATFORM`.
const ACCESS_PLATFORM: u32 = 33;

/// Reads and checks the configuration space.
///
/// # Errors
///
/// `ENODEV`: something in it makes no sense; the log says what.
pub(super) fn read(vdev: &virtio::Device<Bound>) -> Result<(Config, Limits)> {
    let mut bytes = [0; CONFIG_BYTES];
    vdev.read_config(0, &mut bytes);
    let config = Config::read_from_bytes(&bytes).map_err(|_| EINVAL)?;
    let limits = config.validate().map_err(|reason| {
        dev_err!(vdev, "configuration space: {}\n", reason);
        ENODEV
    })?;
    Ok((config, limits))
}

/// The uuid that a device publishes for its memory.
///
/// # Errors
///
/// `ENODEV`: its configuration space makes no sense; the log says what.
pub(crate) fn uuid_of(vdev: &virtio::Device<Bound>) -> Result<[u8; 16]> {
    read(vdev).map(|(config, _)| config.uuid)
}

/// What must be the same of a device that comes back.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    /// Bytes of its memory.
    pub(super) memory_bytes: u64,
    /// The minor version of the wire format that it speaks.
    pub(super) version_minor: u16,
    /// The negotiated device features.
    pub(super) features: Features,
}

impl Shape {
    /// In what a device that came back differs from what it was, so that it cannot go on.
    pub(crate) fn difference(self, returned: Self) -> Option<&'static str> {
        if returned.memory_bytes != self.memory_bytes {
            Some("size")
        } else if returned.version_minor < self.version_minor {
            Some("version")
        } else if returned.features != self.features {
            Some("features")
        } else {
            None
        }
    }
}

/// The negotiated device features.
///
/// # Errors
///
/// `ENODEV`: one is missing that the driver needs.
pub(super) fn features(vdev: &virtio::Device<Bound>) -> Result<Features> {
    if !vdev.has_feature(VERSION_1) || !vdev.has_feature(ACCESS_PLATFORM) {
        dev_err!(vdev, "the device lacks VERSION_1 or ACCESS_PLATFORM\n");
        return Err(ENODEV);
    }
    let features = FEATURES
        .iter()
        .filter(|&&bit| vdev.has_feature(bit))
        .fold(Features(0), |features, &bit| {
            features.union(Features(1 << bit))
        });
    if !features.contains(Features::REQUIRED) {
        dev_err!(
            vdev,
            "the device lacks features: has {:#x}, needs {:#x}\n",
            features.0,
            Features::REQUIRED.0
        );
        return Err(ENODEV);
    }
    Ok(features)
}

/// What bounds contexts and jobs; `None` without contexts.
///
/// # Errors
///
/// `ENODEV`: something in it makes no sense; the log says what.
pub(super) fn job_limits(
    vdev: &virtio::Device<Bound>,
    config: &Config,
    features: Features,
) -> Result<Option<JobLimits>> {
    config.validate_jobs(features).map_err(|reason| {
        dev_err!(vdev, "configuration space: {}\n", reason);
        ENODEV
    })
}

/// Names of all queues, for the transport.
///
/// # Errors
///
/// `ENOMEM`.
pub(super) fn queue_names(
    bulk_queues: u32,
    jobs: Option<&JobLimits>,
) -> Result<KVec<&'static CStr>> {
    let mut names = KVec::with_capacity(usize::from(BULK_QUEUE_FIRST), GFP_KERNEL)?;
    names.push(c"control", GFP_KERNEL)?;
    names.push(c"event", GFP_KERNEL)?;
    names.push(c"urgent", GFP_KERNEL)?;
    for _ in 0..bulk_queues {
        names.push(c"bulk", GFP_KERNEL)?;
    }
    if let Some(jobs) = jobs {
        names.push(c"mmu", GFP_KERNEL)?;
        names.push(c"report", GFP_KERNEL)?;
        for _ in 0..jobs.job_queues {
            names.push(c"job", GFP_KERNEL)?;
        }
    }
    Ok(names)
}

#[kunit_tests(virtio_hmm_shape)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape {
        memory_bytes: 1 << 30,
        version_minor: 1,
        features: Features(0x3ff),
    };

    #[test]
    fn only_the_same_device_goes_on() {
        assert!(SHAPE.difference(SHAPE).is_none());
        let larger = Shape {
            memory_bytes: 1 << 31,
            ..SHAPE
        };
        assert!(SHAPE.difference(larger) == Some("size"));
        let older = Shape {
            version_minor: 0,
            ..SHAPE
        };
        assert!(SHAPE.difference(older) == Some("version"));
        assert!(older.difference(SHAPE).is_none());
        let other = Shape {
            features: Features(0x1ff),
            ..SHAPE
        };
        assert!(SHAPE.difference(other) == Some("features"));
        assert!(other.difference(SHAPE) == Some("features"));
    }
}
