// SPDX-License-Identifier: GPL-2.0-only

//! A device's folder in debugfs. `docs/tracing.md` describes its files.

use crate::{
    device::DevicePool,
    stats::{
        Stage,
        StageTimes,
        Stats, //
    }, //
};
use hmm_uapi::SkipReason;
use kernel::{
    debugfs::{
        Scope,
        ScopedDir, //
    },
    fmt::{
        self,
        Write, //
    },
    prelude::*,
    sync::Arc, //
};

/// What the files read.
pub(crate) struct Sources {
    stats: Arc<Stats>,
    pool: Arc<DevicePool>,
}

/// The folder `name`, which goes when the result is dropped.
pub(super) fn folder<'a>(
    name: &'a CStr,
    stats: Arc<Stats>,
    pool: Arc<DevicePool>,
) -> impl PinInit<Scope<Sources>, Error> + 'a {
    Scope::dir(Ok(Sources { stats, pool }), name, fill)
}

fn fill<'data>(sources: &'data Sources, folder: &ScopedDir<'data, '_>) {
    folder.read_callback_file(c"counters", sources, &counters);
    let times = folder.dir(c"times");
    for stage in Stage::ALL {
        if let Some(of_stage) = sources.stats.times().of(stage) {
            times.read_callback_file(stage.name(), of_stage, &stage_times);
        }
    }
}

/// One counter a line: its name, as `hmm_uapi::Stats` has it or [`ContextStats`](crate::stats), and its value.
fn counters(sources: &Sources, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (name, counter) in sources.stats.named() {
        writeln!(f, "{name} {}", counter.get())?;
    }
    for (name, counter) in sources.stats.contexts.named() {
        writeln!(f, "{name} {}", counter.get())?;
    }
    for (name, counter) in sources.stats.loss.named() {
        writeln!(f, "{name} {}", counter.get())?;
    }
    let counts = sources.pool.loss().counts();
    writeln!(f, "losses {}", counts.losses)?;
    writeln!(f, "returns {}", counts.returns)?;
    writeln!(f, "refused_returns {}", counts.refusals)?;
    let pages = sources.pool.pages();
    writeln!(f, "resident_bytes {}", pages.resident_bytes())?;
    writeln!(f, "peak_resident_bytes {}", pages.peak_resident_bytes())?;
    let skipped = sources.stats.skipped();
    for (reason, pages) in SkipReason::ALL.iter().zip(skipped) {
        writeln!(f, "pages_skipped_{} {pages}", reason.name())?;
    }
    Ok(())
}

/// For each trigger that occurred a line with the whole, and one for each bucket.
fn stage_times(times: &StageTimes, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (trigger, histogram) in times.snapshots() {
        let count = histogram.count();
        if count == 0 {
            continue;
        }
        let name = trigger.name();
        write!(f, "trigger={name} count={count} sum_ns={}", histogram.sum())?;
        for (quantile, per_mille) in [("p50_ns", 500), ("p90_ns", 900), ("p99_ns", 990)] {
            if let Some(bound) = histogram.quantile_bound(per_mille) {
                write!(f, " {quantile}<{bound}")?;
            }
        }
        f.write_char('\n')?;
        for (start, end, count) in histogram.buckets() {
            write!(f, "trigger={name} from_ns={start} ")?;
            if let Some(end) = end {
                write!(f, "below_ns={end} ")?;
            }
            writeln!(f, "count={count}")?;
        }
    }
    Ok(())
}
