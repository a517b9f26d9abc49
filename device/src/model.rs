// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A modelled link between guest and device: it adds the transfer times of hardware that is not there.
//!
//! Each direction is a pipe of its own: bytes pass one after the other at the bandwidth, whatever queue they belong to,
//! and arrive the latency later. A batch is complete when the last of its bytes has arrived, or when the copy is really
//! done if that is later: the model delays, it cannot speed up. Copies and fills within the device do not use the link.

mod error;

use std::{
    fmt,
    str::FromStr,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use serde::Serialize;

pub use self::error::LinkError;

/// Share of a PCIe link's raw rate that is left for data: packets of 256 bytes with their headers and acknowledgements.
const PCIE_PAYLOAD: f64 = 0.9;
/// Bytes a second of one PCIe 3 lane after its line code; each generation doubles it.
const PCIE3_LANE: f64 = 0.985e9;

/// One direction, as users set it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct DirectionSpec {
    /// Time that a byte travels, nanoseconds.
    pub latency_ns: u64,
    /// Bytes a second; absent for no bound.
    pub bytes_per_second: Option<f64>,
}

/// A link, as users set it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LinkSpec {
    /// From guest to device.
    pub to_device: DirectionSpec,
    /// From device to guest.
    pub to_system: DirectionSpec,
}

impl LinkSpec {
    fn symmetric(latency_ns: u64, bytes_per_second: f64) -> Self {
        let direction = DirectionSpec {
            latency_ns,
            bytes_per_second: Some(bytes_per_second),
        };
        Self {
            to_device: direction,
            to_system: direction,
        }
    }

    /// `pcie3x16` and its like, `cxl2x8`, `cxl2x16`, `nvlink-c2c`.
    fn preset(name: &str) -> Option<Self> {
        if let Some(rest) = name.strip_prefix("pcie") {
            let (generation, lanes) = rest.split_once('x')?;
            let generation: i32 = generation.parse().ok()?;
            let lanes: u32 = lanes.parse().ok()?;
            if !(3..=6).contains(&generation) || ![1, 2, 4, 8, 16].contains(&lanes) {
                return None;
            }
            let lane = PCIE3_LANE * 2f64.powi(generation - 3);
            return Some(Self::symmetric(
                1000,
                lane * f64::from(lanes) * PCIE_PAYLOAD,
            ));
        }
        match name {
            // CXL 2 runs on PCIe 5 lanes, and its memory protocol saves the trip through the I/O protocol's queues.
            "cxl2x8" => Some(Self::symmetric(400, PCIE3_LANE * 4.0 * 8.0 * PCIE_PAYLOAD)),
            "cxl2x16" => Some(Self::symmetric(400, PCIE3_LANE * 4.0 * 16.0 * PCIE_PAYLOAD)),
            // A coherent chip-to-chip link.
            "nvlink-c2c" => Some(Self::symmetric(600, 400e9)),
            _ => None,
        }
    }
}

impl FromStr for LinkSpec {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Self, LinkError> {
        if let Some(preset) = Self::preset(text) {
            return Ok(preset);
        }
        let nothing = DirectionSpec {
            latency_ns: 0,
            bytes_per_second: None,
        };
        let mut spec = Self {
            to_device: nothing,
            to_system: nothing,
        };
        for part in text.split(',') {
            let (key, value) = part
                .split_once('=')
                .ok_or_else(|| LinkError::Part(part.to_owned()))?;
            let (directions, quantity): (&mut [&mut DirectionSpec], _) = match key.split_once('.') {
                None => (&mut [&mut spec.to_device, &mut spec.to_system], key),
                Some(("to_device", quantity)) => (&mut [&mut spec.to_device], quantity),
                Some(("to_system", quantity)) => (&mut [&mut spec.to_system], quantity),
                Some((other, _)) => {
                    return Err(LinkError::Direction(other.to_owned()));
                }
            };
            for direction in directions {
                match quantity {
                    "latency" => direction.latency_ns = parse_time(value)?,
                    "bandwidth" => direction.bytes_per_second = Some(parse_rate(value)?),
                    other => return Err(LinkError::Quantity(other.to_owned())),
                }
            }
        }
        Ok(spec)
    }
}

impl fmt::Display for LinkSpec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, direction)) in
            [("to_device", self.to_device), ("to_system", self.to_system)]
                .into_iter()
                .enumerate()
        {
            let separator = if index == 0 { "" } else { "," };
            write!(
                formatter,
                "{separator}{name}.latency={}ns",
                direction.latency_ns
            )?;
            if let Some(rate) = direction.bytes_per_second {
                write!(formatter, ",{name}.bandwidth={rate}")?;
            }
        }
        Ok(())
    }
}

/// `800ns`, `2us`, `1.5ms`, `1s`: nanoseconds, at most a minute.
fn parse_time(text: &str) -> Result<u64, LinkError> {
    let bad = || LinkError::Time(text.to_owned());
    let unit = text.trim_start_matches(|at: char| at.is_ascii_digit() || at == '.');
    let scale = match unit {
        "ns" => 1.0,
        "us" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        _ => return Err(bad()),
    };
    let number: f64 = text[..text.len() - unit.len()].parse().map_err(|_| bad())?;
    let ns = number * scale;
    if ns.is_finite() && ns <= 60e9 {
        Ok(ns as u64)
    } else {
        Err(LinkError::Latency)
    }
}

/// `12.5G`, `800M`: bytes a second, in powers of 1000.
fn parse_rate(text: &str) -> Result<f64, LinkError> {
    let bad = || LinkError::Rate(text.to_owned());
    let text_without = text.strip_suffix("B/s").unwrap_or(text);
    let unit = text_without.trim_start_matches(|at: char| at.is_ascii_digit() || at == '.');
    let scale = match unit {
        "" => 1.0,
        "k" | "K" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        _ => return Err(bad()),
    };
    let number: f64 = text_without[..text_without.len() - unit.len()]
        .parse()
        .map_err(|_| bad())?;
    let rate = number * scale;
    if (1e3..=1e15).contains(&rate) {
        Ok(rate)
    } else {
        Err(LinkError::Bandwidth)
    }
}

#[derive(Debug)]
struct Direction {
    spec: DirectionSpec,
    free_from: Mutex<Option<Instant>>,
}

impl Direction {
    fn new(spec: DirectionSpec) -> Self {
        Self {
            spec,
            free_from: Mutex::new(None),
        }
    }

    /// When the last of `bytes` bytes arrives of which the first could leave at `start`.
    fn pass(&self, start: Instant, bytes: u64) -> Instant {
        let latency = Duration::from_nanos(self.spec.latency_ns);
        let Some(rate) = self.spec.bytes_per_second else {
            return start + latency;
        };
        let mut free_from = self.free_from.lock();
        let begin = free_from.map_or(start, |free| free.max(start));
        let end = begin + Duration::from_secs_f64(bytes as f64 / rate);
        *free_from = Some(end);
        end + latency
    }
}

/// The link, with what is on its way.
#[derive(Debug)]
pub struct Link {
    spec: LinkSpec,
    to_device: Direction,
    to_system: Direction,
}

impl Link {
    /// A link with nothing on its way.
    pub fn new(spec: LinkSpec) -> Self {
        Self {
            spec,
            to_device: Direction::new(spec.to_device),
            to_system: Direction::new(spec.to_system),
        }
    }

    /// What was set.
    pub fn spec(&self) -> &LinkSpec {
        &self.spec
    }

    /// When a batch is complete that was started at `start` and moved so many bytes in each direction.
    pub fn complete(&self, start: Instant, to_device: u64, to_system: u64) -> Instant {
        let mut complete = start;
        if to_device > 0 {
            complete = complete.max(self.to_device.pass(start, to_device));
        }
        if to_system > 0 {
            complete = complete.max(self.to_system.pass(start, to_system));
        }
        complete
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Link, LinkSpec};

    #[test]
    fn presets_and_values_are_understood() {
        let preset: LinkSpec = "pcie4x16".parse().expect("a preset");
        let rate = preset.to_device.bytes_per_second.expect("bounded");
        assert!((28e9..29e9).contains(&rate), "{rate}");
        let spec: LinkSpec = "latency=2us,bandwidth=12.5G,to_system.bandwidth=800MB/s"
            .parse()
            .expect("values");
        assert_eq!(spec.to_device.latency_ns, 2000);
        assert_eq!(spec.to_device.bytes_per_second, Some(12.5e9));
        assert_eq!(spec.to_system.bytes_per_second, Some(800e6));
        assert_eq!(spec.to_string().parse(), Ok(spec));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "fast",
            "pcie2x16",
            "pcie4x3",
            "latency",
            "latency=2",
            "latency=-2us",
            "latency=999s",
            "bandwidth=0",
            "bandwidth=fast",
            "up.latency=1us",
            "speed=1",
        ] {
            assert!(text.parse::<LinkSpec>().is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn bytes_pass_one_after_the_other_in_each_direction() {
        let spec = "latency=10us,bandwidth=1G".parse().expect("values");
        let link = Link::new(spec);
        let start = Instant::now();
        let after = |micros| start + Duration::from_micros(micros);
        // A thousand bytes take a microsecond.
        assert_eq!(link.complete(start, 100_000, 0), after(110));
        assert_eq!(
            link.complete(start, 100_000, 0),
            after(210),
            "behind the first"
        );
        assert_eq!(
            link.complete(start, 0, 50_000),
            after(60),
            "the other way is free"
        );
        assert_eq!(link.complete(after(500), 1000, 0), after(511), "free again");
        assert_eq!(link.complete(start, 0, 0), start, "nothing was sent");
    }
}
