// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the stages of device faults took, as the driver measures them.

use anyhow::{Context, Result, ensure};
use hmm_control::bench::FAULT_STAGES;
use std::fs;
use std::path::Path;

const FOLDER: &str = "/sys/kernel/debug/hmm0/times";
const TRIGGER: &str = "trigger=device_fault ";

/// How often each stage of a device fault was measured, and the sum of its times, nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Times {
    count: u64,
    sum_ns: u64,
}

/// What there is so far.
pub(super) fn read() -> Result<[Times; FAULT_STAGES.len()]> {
    let mut all = [Times::default(); FAULT_STAGES.len()];
    for (times, stage) in all.iter_mut().zip(FAULT_STAGES) {
        let file = Path::new(FOLDER).join(stage);
        let text =
            fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        *times = of(&text).with_context(|| format!("{} has {text}", file.display()))?;
    }
    Ok(all)
}

/// What each fault took since then, on average, nanoseconds.
pub(super) fn since(before: &[Times; FAULT_STAGES.len()]) -> Result<[u64; FAULT_STAGES.len()]> {
    let mut means = [0; FAULT_STAGES.len()];
    let after = read()?;
    let faults = after[FAULT_STAGES.len() - 1]
        .count
        .saturating_sub(before[FAULT_STAGES.len() - 1].count);
    ensure!(faults > 0, "the device had no fault");
    for (index, mean) in means.iter_mut().enumerate() {
        *mean = after[index].sum_ns.saturating_sub(before[index].sum_ns) / faults;
    }
    Ok(means)
}

/// The line of device faults in a file. Without one there was none.
fn of(text: &str) -> Result<Times> {
    let line = text
        .lines()
        .filter_map(|line| line.strip_prefix(TRIGGER))
        .find(|line| line.contains("sum_ns="));
    let Some(line) = line else {
        return Ok(Times::default());
    };
    let value = |name: &str| -> Result<u64> {
        let value = line
            .split(' ')
            .find_map(|field| field.strip_prefix(name))
            .with_context(|| format!("no {name}"))?;
        value.parse().with_context(|| format!("{name}{value}"))
    };
    Ok(Times {
        count: value("count=")?,
        sum_ns: value("sum_ns=")?,
    })
}

#[cfg(test)]
mod tests {
    use super::{Times, of};

    #[test]
    fn the_line_of_device_faults_is_read() {
        let text = "trigger=user count=9 sum_ns=9 p50_ns<8\n\
            trigger=device_fault count=2 sum_ns=30 p50_ns<16 p90_ns<16 p99_ns<16\n\
            trigger=device_fault from_ns=8 below_ns=16 count=2\n";
        let times = Times {
            count: 2,
            sum_ns: 30,
        };
        assert_eq!(of(text).unwrap(), times);
        assert_eq!(
            of("trigger=user count=1 sum_ns=1\n").unwrap(),
            Times::default()
        );
        assert!(of("trigger=device_fault count=x sum_ns=1\n").is_err());
    }
}
