// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! Device-specific virtio feature bits (0 to 23).

/// A set of feature bits, as the low 24 bits of the virtio feature word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features(pub u64);

impl Features {
    /// The event queue is served.
    pub const EVENT_QUEUE: Self = Self(1 << 0);
    /// The urgent queue is served before the bulk queues.
    pub const URGENT_QUEUE: Self = Self(1 << 1);
    /// `BatchFlags::STATUS_ARRAY` is understood.
    pub const STATUS_ARRAY: Self = Self(1 << 2);
    /// `Op::Fill` is understood.
    pub const FILL: Self = Self(1 << 3);
    /// `Op::Copy` (device to device) is understood.
    pub const DEVICE_COPY: Self = Self(1 << 4);
    /// `BatchKind::PageList` is understood.
    pub const PAGE_LIST: Self = Self(1 << 5);
    /// `EntryFlags::SCRUB` is understood.
    pub const SCRUB: Self = Self(1 << 6);
    /// `ControlKind::Discard` is understood: a discarded range reads as zero.
    pub const DISCARD: Self = Self(1 << 7);
    /// The completion record's status byte is written last, so the driver may poll it.
    pub const POLLED_COMPLETION: Self = Self(1 << 8);
    /// `ControlKind::SessionOpen` carries a [`SessionKey`](crate::SessionKey), and with it contents can be adopted.
    pub const SESSION_KEY: Self = Self(1 << 9);
    /// There are contexts with page tables, an MMU queue, a report queue, and queues for jobs.
    pub const CONTEXTS: Self = Self(1 << 10);
    /// `JobKind::Program` is understood.
    pub const PROGRAMS: Self = Self(1 << 11);
    /// `ControlKind::AccessBits` is understood.
    pub const ACCESS_BITS: Self = Self(1 << 12);
    /// Faults may be injected into this device on command.
    pub const FAULT_INJECTION: Self = Self(1 << 23);

    /// What a driver of this version cannot work without.
    pub const REQUIRED: Self = Self(
        Self::EVENT_QUEUE.0
            | Self::URGENT_QUEUE.0
            | Self::STATUS_ARRAY.0
            | Self::FILL.0
            | Self::PAGE_LIST.0
            | Self::POLLED_COMPLETION.0,
    );

    /// Every feature of this version.
    pub const ALL: Self = Self(
        Self::REQUIRED.0
            | Self::DEVICE_COPY.0
            | Self::SCRUB.0
            | Self::DISCARD.0
            | Self::SESSION_KEY.0
            | Self::FAULT_INJECTION.0,
    );

    /// Whether every bit of `other` is set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The bits of both.
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The bits that `other` lacks.
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}
