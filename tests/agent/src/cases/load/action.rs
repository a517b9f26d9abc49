// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How a worker does each operation. Each says what came of it, for the history.

use super::area::Area;
use super::operation::Operation;
use super::worker::{Begun, Worker};
use crate::cases::support::moves::Moved;
use crate::cases::support::prelude::*;
use crate::cases::support::random::Random;
use hmm_uapi::client::{Advice, PrefetchRequest};
use hmm_uapi::{PreferredSide, PrefetchState};
use rustix::mm;
use std::ops::Range;

/// Threads that use memory at the same time.
const THREADS: usize = 3;
/// Prefetches that go on at the same time.
const MOST_PREFETCHES: usize = 8;
/// The least and the most that LIMIT allows a worker, bytes.
const LEAST_LIMIT: usize = 4 << 20;
const MOST_LIMIT: usize = 24 << 20;
const MADV_COLLAPSE: i32 = 25;

impl Worker<'_> {
    /// Does it, and notes it.
    pub(super) fn perform(&mut self, operation: Operation) -> Result<()> {
        let what = self.act(operation)?;
        self.history.note(format!("{operation:?}: {what}"));
        Ok(())
    }

    fn act(&mut self, operation: Operation) -> Result<String> {
        match operation {
            Operation::ToDevice => self.migrate(Direction::ToDevice, MigrateFlags::default()),
            Operation::Populate => self.migrate(Direction::ToDevice, MigrateFlags::POPULATE),
            Operation::ToSystem => self.migrate(Direction::ToSystem, MigrateFlags::default()),
            Operation::AllToDevice => self.all_to_device(),
            Operation::WriteByThreads => self.write_by_threads(),
            Operation::CheckByThreads => self.check_by_threads(),
            Operation::Remap | Operation::Cut | Operation::Replace => self.map_anew(operation),
            Operation::Fork => self.fork(),
            Operation::Bury => self.bury(),
            Operation::Advise => self.advise(),
            Operation::Prefetch => self.prefetch(),
            Operation::Wait => self.wait_for_prefetch(),
            Operation::Evict => self.evict(),
            Operation::Limit => self.limit(),
            Operation::WriteByDevice => self.write_by_device(),
            Operation::CheckByDevice => self.check_by_device(),
            Operation::AddByDevice => self.add_by_device(),
            Operation::BeginJob => self.begin_job(),
            Operation::EndJob => self.end_job(),
            Operation::Write
            | Operation::Check
            | Operation::Discard
            | Operation::Free
            | Operation::PageOut
            | Operation::Collapse
            | Operation::ChoosePages
            | Operation::Merge => self.use_area(operation),
            Operation::Outside => bail!("a worker is no outsider"),
        }
    }

    fn migrate(&mut self, direction: Direction, flags: MigrateFlags) -> Result<String> {
        let (device, index) = (self.some_device(), self.some_area());
        let area = &self.areas[index];
        let range = area.model.some_range(&mut self.random);
        let text = format!("{} on device {device}", hex(&range));
        let moved = migrate(&self.movers[device], area, range, direction, flags)
            .with_context(|| format!("{area}: {text}"))?;
        Ok(format!("{area}: {text}: {}", outcome(&moved)))
    }

    fn all_to_device(&mut self) -> Result<String> {
        let device = self.some_device();
        let mut pages = 0;
        for area in &self.areas {
            let range = area.model.memory().range();
            let (direction, flags) = (Direction::ToDevice, MigrateFlags::default());
            pages += migrate(&self.movers[device], area, range, direction, flags)
                .with_context(|| area.to_string())?
                .pages;
        }
        Ok(format!("{pages} pages to device {device}"))
    }

    fn write_by_threads(&mut self) -> Result<String> {
        let (device, index) = (self.some_device(), self.some_area());
        let (area, mover) = (&mut self.areas[index], &self.movers[device]);
        let (text, mergeable) = (area.to_string(), area.mergeable);
        let pages = area
            .model
            .write_by_threads(&mut self.random, THREADS, |range| {
                back_and_forth(mover, mergeable, range)
            })
            .with_context(|| text.clone())?;
        Ok(format!(
            "{text}: {pages} pages moved meanwhile, on device {device}"
        ))
    }

    fn check_by_threads(&mut self) -> Result<String> {
        let (device, index) = (self.some_device(), self.some_area());
        let (area, mover) = (&self.areas[index], &self.movers[device]);
        let pages = area
            .model
            .check_by_threads(&mut self.random, THREADS, |range| {
                back_and_forth(mover, area.mergeable, range)
            })
            .with_context(|| area.to_string())?;
        Ok(format!(
            "{area}: {pages} pages moved meanwhile, on device {device}"
        ))
    }

    /// What takes no device.
    fn use_area(&mut self, operation: Operation) -> Result<String> {
        let index = self.some_area();
        let before = self.areas[index].to_string();
        let done = use_area(&mut self.random, &mut self.areas[index], operation);
        Ok(format!(
            "{before}: {}",
            done.with_context(|| before.clone())?
        ))
    }

    /// What takes a mapping away and may leave others.
    fn map_anew(&mut self, operation: Operation) -> Result<String> {
        let index = self.some_area();
        let area = self.areas.swap_remove(index);
        let before = area.to_string();
        area.model.check_all().with_context(|| before.clone())?;
        let random = &mut self.random;
        match operation {
            Operation::Remap => {
                let area = area.map(|model| model.remap(random))?;
                let text = format!("{before}: now {area}");
                self.areas.push(area);
                Ok(text)
            }
            Operation::Cut => {
                let left = area.model.cut(random)?.into_iter();
                self.areas.extend(left.map(|model| Area {
                    model,
                    mergeable: area.mergeable,
                    was_mergeable: area.was_mergeable,
                }));
                Ok(before)
            }
            _ => {
                drop(area);
                let area = Area::some(random)?;
                let text = format!("{before}: now {area}");
                self.areas.push(area);
                Ok(text)
            }
        }
    }

    fn advise(&mut self) -> Result<String> {
        let (device, index) = (self.some_device(), self.some_area());
        let (random, area) = (&mut self.random, &self.areas[index]);
        let (range, advice) = some_advice(random, area);
        let text = format!("{area}: {} on device {device}: {advice:?}", hex(&range));
        (self.movers[device].device)
            .advise(Process::Caller, range, advice)
            .with_context(|| text.clone())?;
        Ok(text)
    }

    fn prefetch(&mut self) -> Result<String> {
        if self.prefetches.len() == MOST_PREFETCHES {
            self.wait_for_prefetch()?;
        }
        let (device, index) = (self.some_device(), self.some_area());
        let (random, area) = (&mut self.random, &self.areas[index]);
        let range = area.model.some_range(random);
        let direction = match random.below(4) {
            0 => None,
            1 => Some(Direction::ToSystem),
            _ => Some(Direction::ToDevice),
        };
        let text = format!("{area}: {} on device {device}, {direction:?}", hex(&range));
        let request = PrefetchRequest {
            process: Process::Caller,
            range: range.clone(),
            direction,
            flags: MigrateFlags::default(),
        };
        let id = (self.movers[device].device.prefetch(&request)).with_context(|| text.clone())?;
        self.prefetches.push(Begun { device, id, range });
        Ok(text)
    }

    /// Waits for one of the prefetches, and perhaps asks it to stop. What it was to move may be gone by now.
    pub(super) fn wait_for_prefetch(&mut self) -> Result<String> {
        if self.prefetches.is_empty() {
            return Ok("there are no prefetches".to_owned());
        }
        let index = self.random.below(self.prefetches.len());
        let Begun { device, id, range } = self.prefetches.swap_remove(index);
        let text = format!("{} on device {device}", hex(&range));
        let device = &self.movers[device].device;
        let report = match self.random.below(3) {
            0 => device.cancel(id),
            _ => device.wait(id, None),
        };
        let report = report.with_context(|| text.clone())?;
        let is_right = match report.state {
            PrefetchState::Done => report.next == range.end,
            PrefetchState::Cancelled => report.next < range.end,
            PrefetchState::Running | PrefetchState::Failed => false,
        };
        ensure!(is_right, "{text}: {report:?}");
        Ok(format!(
            "{text}: {:?}, {} pages",
            report.state, report.pages_moved
        ))
    }

    fn evict(&mut self) -> Result<String> {
        let (device, index) = (self.some_device(), self.some_area());
        let area = &self.areas[index];
        let range = area.model.some_range(&mut self.random);
        let text = format!("{area}: {} on device {device}", hex(&range));
        let device = &self.movers[device].device;
        let report = (device.evict(Process::Caller, range)).with_context(|| text.clone())?;
        Ok(format!("{text}: {} bytes", report.bytes_evicted))
    }

    /// Only where there is none from the start, which keeps the process within its cgroup.
    fn limit(&mut self) -> Result<String> {
        if self.profile.limit_crowded.is_some() {
            return Ok("it stays".to_owned());
        }
        let limit = match self.random.below(2) {
            0 => None,
            _ => Some((LEAST_LIMIT + self.random.below(MOST_LIMIT - LEAST_LIMIT)) as u64),
        };
        let Some(mover) = self.movers.last() else {
            bail!("there is no device");
        };
        mover.device.set_limit(Process::Caller, limit)?;
        Ok(format!("{limit:?}"))
    }
}

fn use_area(random: &mut Random, area: &mut Area, operation: Operation) -> Result<String> {
    let model = &mut area.model;
    let all = 0..model.memory().pages();
    let pages = match operation {
        Operation::Write => model.write(random),
        Operation::Discard => model.discard(random)?,
        // The kernel loses those that are merged with them later (docs/kernel-faults.md).
        Operation::Free if area.was_mergeable => return Ok("some may be merged".to_owned()),
        Operation::Free => model.free(random)?,
        Operation::Check => {
            let pages = model.some_pages(random);
            model.check(pages.clone())?;
            pages
        }
        Operation::PageOut => {
            let pages = model.some_pages(random);
            (model.memory()).advise(pages.clone(), mm::Advice::LinuxPageOut)?;
            pages
        }
        Operation::Collapse => {
            let pages = model.some_pages(random);
            // It may be in the way of anything else.
            let done = model.memory().advise_raw(pages.clone(), MADV_COLLAPSE);
            return Ok(format!("pages {pages:?}: {done:?}"));
        }
        Operation::ChoosePages => {
            let advice = match random.below(2) {
                0 => mm::Advice::LinuxHugepage,
                _ => mm::Advice::LinuxNoHugepage,
            };
            model.memory().advise(all, advice)?;
            return Ok(format!("{advice:?}"));
        }
        Operation::Merge => {
            area.toggle_merging()?;
            all
        }
        _ => bail!("{operation:?} takes more than a mapping"),
    };
    Ok(format!("pages {pages:?}"))
}

/// MIGRATE, which leaves alone what the kernel may merge.
fn migrate(
    mover: &Mover,
    area: &Area,
    range: Range<u64>,
    direction: Direction,
    flags: MigrateFlags,
) -> Result<Moved> {
    let moved = mover.call(range, direction, flags)?;
    let may_move = direction == Direction::ToSystem || !area.mergeable;
    ensure!(
        may_move || moved.pages == 0,
        "the kernel may merge pages that went to the device: {moved:?}"
    );
    Ok(moved)
}

/// Moves memory that others use at the same time. Says how many pages moved.
pub(super) fn back_and_forth(mover: &Mover, mergeable: bool, range: Range<u64>) -> Result<usize> {
    let mut pages = 0;
    for direction in [
        Direction::ToDevice,
        Direction::ToSystem,
        Direction::ToDevice,
    ] {
        let moved = mover.call(range.clone(), direction, MigrateFlags::default())?;
        ensure!(
            direction == Direction::ToSystem || !mergeable || moved.pages == 0,
            "the kernel may merge pages that went to the device: {moved:?}"
        );
        pages += moved.pages;
    }
    Ok(pages)
}

fn some_advice(random: &mut Random, area: &Area) -> (Range<u64>, Advice) {
    let range = area.model.some_range(random);
    let advice = Advice::default();
    match random.below(4) {
        0 => {
            let side = match random.below(3) {
                0 => PreferredSide::None,
                1 => PreferredSide::Device,
                _ => PreferredSide::System,
            };
            let side = Some(side);
            (range, Advice { side, ..advice })
        }
        1 => {
            let least = PAGE << random.below(10);
            let most = (least << random.below(10)).min(HUGE);
            let window = Some((least as u32, most as u32));
            (range, Advice { window, ..advice })
        }
        2 => {
            let keep = Some(true);
            (range, Advice { keep, ..advice })
        }
        // More often, and of everything, or nothing could be evicted in the end.
        _ => {
            let keep = Some(false);
            (area.model.memory().range(), Advice { keep, ..advice })
        }
    }
}

pub(super) fn hex(range: &Range<u64>) -> String {
    format!("{:#x}-{:#x}", range.start, range.end)
}

fn outcome(moved: &Moved) -> String {
    let skipped: Vec<_> = moved.skipped.named().collect();
    format!("{} pages, skipped {skipped:?}", moved.pages)
}
