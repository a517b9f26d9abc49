// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The residency map: where each block of memory was, and when.

use super::Period;
use crate::recording::{Block, Look};
use serde::Serialize;
use std::collections::BTreeMap;

/// Rows of the map, and what is in them.
#[derive(Serialize)]
pub(super) struct Residency {
    /// By process and address.
    rows: Vec<Row>,
    /// Row, beginning and end in milliseconds, pages on the device and in system memory, 1 if they are huge.
    spans: Vec<(usize, f64, f64, u32, u32, u8)>,
    /// The blocks that changed sides most often, with at least [`THRASHING`] changes.
    thrashing: Vec<Thrashing>,
}

#[derive(Serialize)]
struct Row {
    pid: u64,
    name: String,
    address: String,
}

#[derive(Serialize)]
struct Thrashing {
    pid: u64,
    name: String,
    address: String,
    changes: usize,
}

/// A block that goes there and back is used; one that does so again goes to and fro.
const THRASHING: usize = 3;
/// How many are told.
const MOST_TOLD: usize = 10;

/// What is known of a block so far.
#[derive(Default)]
struct History {
    /// When it changed, milliseconds, and to what.
    changes: Vec<(f64, Block)>,
}

impl Residency {
    /// Puts the looks together.
    pub(super) fn new(looks: &[Look], period: Period) -> Self {
        let mut names = BTreeMap::new();
        let mut last_look: BTreeMap<u64, f64> = BTreeMap::new();
        let mut blocks: BTreeMap<(u64, u64), History> = BTreeMap::new();
        for look in looks {
            let time = period.milliseconds(look.time);
            names.insert(look.pid, look.name.as_str());
            last_look.insert(look.pid, time);
            for &block in &look.changes {
                let history = blocks.entry((look.pid, block.address)).or_default();
                history.changes.push((time, block));
            }
        }
        let name = |pid: u64| (*names.get(&pid).unwrap_or(&"")).to_owned();
        let mut residency = Self {
            rows: Vec::with_capacity(blocks.len()),
            spans: Vec::new(),
            thrashing: Vec::new(),
        };
        for (row, (&(pid, address), history)) in blocks.iter().enumerate() {
            residency.rows.push(Row {
                pid,
                name: name(pid),
                address: format!("{address:#x}"),
            });
            // Nothing is known after the last look.
            let end = last_look.get(&pid).copied().unwrap_or(0.0);
            let ends = (history.changes.iter().skip(1))
                .map(|&(time, _)| time)
                .chain([end]);
            for (&(start, block), end) in history.changes.iter().zip(ends) {
                if block.device_pages != 0 || block.system_pages != 0 {
                    let huge = u8::from(block.is_huge);
                    let (device, system) = (block.device_pages, block.system_pages);
                    residency
                        .spans
                        .push((row, start, end, device, system, huge));
                }
            }
            let changes = history.changes_of_side();
            if changes >= THRASHING {
                residency.thrashing.push(Thrashing {
                    pid,
                    name: name(pid),
                    address: format!("{address:#x}"),
                    changes,
                });
            }
        }
        (residency.thrashing).sort_by_key(|block| usize::MAX - block.changes);
        residency.thrashing.truncate(MOST_TOLD);
        residency
    }
}

impl History {
    /// How often most of the block's pages came to be on the other side.
    fn changes_of_side(&self) -> usize {
        let sides: Vec<bool> = (self.changes.iter())
            .map(|(_, block)| block)
            .filter(|block| block.device_pages != block.system_pages)
            .map(|block| block.device_pages > block.system_pages)
            .collect();
        sides.windows(2).filter(|pair| pair[0] != pair[1]).count()
    }
}

#[cfg(test)]
mod tests {
    use super::{Period, Residency};
    use crate::recording::{Block, Look};

    fn look(time: f64, device_pages: u32, system_pages: u32) -> Look {
        Look {
            time,
            pid: 7,
            name: "sort".to_owned(),
            changes: vec![Block {
                address: 0x20_0000,
                device_pages,
                system_pages,
                is_huge: device_pages == 512,
            }],
        }
    }

    #[test]
    fn a_block_is_somewhere_until_it_is_elsewhere() {
        let period = Period {
            start: 1000.0,
            end: 9000.0,
        };
        let mut looks = vec![
            look(1000.0, 0, 512),
            look(2000.0, 512, 0),
            look(3000.0, 0, 0),
            look(4000.0, 0, 512),
            look(5000.0, 512, 0),
        ];
        looks.push(Look {
            changes: Vec::new(),
            ..look(6000.0, 0, 0)
        });
        let residency = Residency::new(&looks, period);
        assert_eq!(
            residency.spans,
            [
                (0, 0.0, 1.0, 0, 512, 0),
                (0, 1.0, 2.0, 512, 0, 1),
                (0, 3.0, 4.0, 0, 512, 0),
                (0, 4.0, 5.0, 512, 0, 1),
            ]
        );
        assert_eq!(residency.thrashing[0].changes, 3);
    }
}
