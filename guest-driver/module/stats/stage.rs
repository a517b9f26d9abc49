// SPDX-License-Identifier: GPL-2.0-only

//! How long the steps of a migration take.

use super::counter::Counter;
use hmm_logic::{
    bucket_of,
    Histogram,
    BUCKETS, //
};
use hmm_uapi::Trigger;
use kernel::{
    prelude::*,
    time::{
        Delta,
        Instant,
        Monotonic, //
    }, //
};

/// A step whose time is measured.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(crate) enum Stage {
    /// The kernel collects the pages of a batch: locks and unmaps them.
    Setup = 0,
    /// Destinations are allocated.
    Destinations = 1,
    /// Memory is mapped for the device, and the batch is written and handed over.
    Submit = 2,
    /// The driver waits for the copy.
    Wait = 3,
    /// The kernel moves the identity of the pages.
    Pages = 4,
    /// The kernel maps the destinations and frees the sources.
    Finalize = 5,
    /// A CPU fault, from beginning to end.
    Fault = 6,
    /// A device fault, from when the driver hears of it to when its job goes on.
    DeviceFault = 7,
    /// A change of page tables is waited for until the device has no access any more.
    Invalidate = 8,
}

impl Stage {
    /// Every stage, in order of its number.
    pub(crate) const ALL: [Self; 9] = [
        Self::Setup,
        Self::Destinations,
        Self::Submit,
        Self::Wait,
        Self::Pages,
        Self::Finalize,
        Self::Fault,
        Self::DeviceFault,
        Self::Invalidate,
    ];

    /// The name of its file in debugfs.
    pub(crate) const fn name(self) -> &'static CStr {
        match self {
            Self::Setup => c"setup",
            Self::Destinations => c"destinations",
            Self::Submit => c"submit",
            Self::Wait => c"wait",
            Self::Pages => c"pages",
            Self::Finalize => c"finalize",
            Self::Fault => c"fault",
            Self::DeviceFault => c"device_fault",
            Self::Invalidate => c"invalidate",
        }
    }
}

/// A histogram that many count in at once.
struct SharedHistogram {
    counts: [Counter; BUCKETS],
    sum: Counter,
}

impl SharedHistogram {
    const fn new() -> Self {
        Self {
            counts: [const { Counter::new() }; BUCKETS],
            sum: Counter::new(),
        }
    }

    fn record(&self, value: u64) {
        if let Some(count) = self.counts.get(bucket_of(value)) {
            count.add(1);
        }
        self.sum.add(value);
    }

    fn snapshot(&self) -> Histogram {
        let mut counts = [0; BUCKETS];
        for (value, counter) in counts.iter_mut().zip(&self.counts) {
            *value = counter.get();
        }
        Histogram::from_parts(counts, self.sum.get())
    }
}

/// The times of one stage, nanoseconds, by trigger.
pub(crate) struct StageTimes([SharedHistogram; Trigger::ALL.len()]);

impl StageTimes {
    const fn new() -> Self {
        Self([const { SharedHistogram::new() }; Trigger::ALL.len()])
    }

    fn record(&self, trigger: Trigger, time: Delta) {
        if let Some(histogram) = self.0.get(trigger as usize) {
            // CAST: Time does not go backwards on the monotonic clock.
            histogram.record(time.as_nanos().max(0) as u64);
        }
    }

    /// The histogram of each trigger.
    pub(crate) fn snapshots(&self) -> impl Iterator<Item = (Trigger, Histogram)> + '_ {
        Trigger::ALL
            .into_iter()
            .zip(self.0.iter().map(SharedHistogram::snapshot))
    }
}

/// The times of all stages.
pub(crate) struct Times(KVec<StageTimes>);

impl Times {
    /// No times yet.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new() -> Result<Self> {
        let mut times = KVec::with_capacity(Stage::ALL.len(), GFP_KERNEL)?;
        for _ in Stage::ALL {
            times.push(StageTimes::new(), GFP_KERNEL)?;
        }
        Ok(Self(times))
    }

    /// The times of one stage.
    pub(crate) fn of(&self, stage: Stage) -> Option<&StageTimes> {
        self.0.get(stage as usize)
    }

    /// Measures from now until the result is dropped.
    pub(super) fn measure(&self, stage: Stage, trigger: Trigger) -> Stopwatch<'_> {
        Stopwatch {
            times: self,
            stage,
            trigger,
            started: Instant::now(),
        }
    }
}

/// Records the time of its life.
#[must_use = "a stopwatch measures until it is dropped"]
pub(crate) struct Stopwatch<'a> {
    times: &'a Times,
    stage: Stage,
    trigger: Trigger,
    started: Instant<Monotonic>,
}

impl Stopwatch<'_> {
    /// When it began.
    pub(crate) fn started(&self) -> Instant<Monotonic> {
        self.started
    }

    /// Records what it measured, and measures the stage that begins now. Reading the clock once is
    /// cheaper than twice.
    pub(crate) fn then(mut self, stage: Stage) -> Self {
        let now = Instant::now();
        self.record(now);
        (self.stage, self.started) = (stage, now);
        self
    }

    fn record(&self, now: Instant<Monotonic>) {
        if let Some(times) = self.times.of(self.stage) {
            times.record(self.trigger, now - self.started);
        }
    }
}

impl Drop for Stopwatch<'_> {
    fn drop(&mut self) {
        self.record(Instant::now());
    }
}
