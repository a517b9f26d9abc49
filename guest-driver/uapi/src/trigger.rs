// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! Why memory moves. The one list: trace events and debugfs use it.

/// Why memory moves. The words are those that GPU vendors' tools use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Trigger {
    /// A MIGRATE call, which waits for the pages.
    User = 0,
    /// A PREFETCH call, which does not wait. Or a CPU reads in order, and
    /// the driver fetches what comes next.
    Prefetch = 1,
    /// A CPU touched a page that was on the device.
    CpuFault = 2,
    /// Device memory was wanted for something else.
    Eviction = 3,
    /// The driver leaves the device, or the system goes down.
    Unbind = 4,
    /// A job on the device touched a page that its process wants there.
    DeviceFault = 5,
}

impl Trigger {
    /// Every trigger, in order of its number.
    pub const ALL: [Self; 6] = [
        Self::User,
        Self::Prefetch,
        Self::CpuFault,
        Self::Eviction,
        Self::Unbind,
        Self::DeviceFault,
    ];

    /// The name used in trace events and debugfs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Prefetch => "prefetch",
            Self::CpuFault => "cpu_fault",
            Self::Eviction => "eviction",
            Self::Unbind => "unbind",
            Self::DeviceFault => "device_fault",
        }
    }
}
