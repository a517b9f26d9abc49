// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! What a process advises about ranges of its memory.

use crate::WindowBounds;
use core::ops::Range;

/// The side of the bus that memory had better be on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Device memory.
    Device,
    /// System memory.
    System,
}

/// The advice for an address. The default is no advice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Advice {
    /// Where a prefetch without a direction moves the memory.
    pub side: Option<Side>,
    /// Whether eviction is to spare the memory.
    pub keep: bool,
    /// Bounds of what a CPU fault takes along.
    pub window: Option<WindowBounds>,
    /// By which page fault of the device the memory moves there; see [`Self::moves_at_touch`].
    pub touches: Option<u32>,
}

impl Advice {
    /// By which page fault of the device within a block the block's memory moves to the device, from 1 on; `None`:
    /// by none. Without advice about that, memory moves by the first where it had better be on the device.
    pub const fn moves_at_touch(self) -> Option<u32> {
        match (self.touches, self.side) {
            (Some(0 | u32::MAX), _) => None,
            (Some(count), _) => Some(count),
            (None, Some(Side::Device)) => Some(1),
            (None, _) => None,
        }
    }
}

/// A range of addresses with the same advice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdviceEntry {
    start: usize,
    end: usize,
    advice: Advice,
}

impl AdviceEntry {
    /// An entry for storage that is not used yet.
    pub const UNUSED: Self = Self {
        start: 0,
        end: 0,
        advice: Advice {
            side: None,
            keep: false,
            window: None,
            touches: None,
        },
    };
}

/// There is no room for the ranges that a change would make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom;

/// Advice by address. `S` is where the entries are kept; its length is the most ranges that there
/// can be.
///
/// The entries are sorted and do not overlap, none is empty, none has the default advice, and two
/// that touch differ.
#[derive(Debug)]
pub struct AdviceMap<S> {
    entries: S,
    len: usize,
}

impl<S: AsRef<[AdviceEntry]> + AsMut<[AdviceEntry]>> AdviceMap<S> {
    /// No advice yet.
    pub const fn new(entries: S) -> Self {
        Self { entries, len: 0 }
    }

    /// How many ranges have advice.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is advised.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many ranges there may be on the way to a change of `range`.
    pub fn room_for(&self, range: &Range<usize>) -> usize {
        let first = self.first_after(range.start);
        let within = self.used().get(first..).unwrap_or(&[]).iter();
        let within = within.take_while(|entry| entry.start < range.end).count();
        // Each gap between the ranges within may become one. At either end there is one more gap,
        // or a range that is split.
        self.len + within + 1
    }

    /// How many ranges there may be.
    pub fn room(&self) -> usize {
        self.entries.as_ref().len()
    }

    /// Moves everything to `entries`, which must not be shorter than [`Self::len`]. Returns the old
    /// storage.
    ///
    /// # Errors
    ///
    /// [`NoRoom`]; nothing changes.
    pub fn move_to(&mut self, mut entries: S) -> Result<S, NoRoom> {
        let place = entries.as_mut().get_mut(..self.len).ok_or(NoRoom)?;
        place.copy_from_slice(self.used());
        Ok(core::mem::replace(&mut self.entries, entries))
    }

    /// The advice about an address.
    pub fn get(&self, address: usize) -> Advice {
        self.run(address..usize::MAX).0
    }

    /// The advice about the start of `range`, and where, at the latest at the end of `range`, other
    /// advice begins.
    pub fn run(&self, range: Range<usize>) -> (Advice, usize) {
        let index = self.first_after(range.start);
        match self.used().get(index) {
            Some(entry) if entry.start <= range.start => (entry.advice, entry.end.min(range.end)),
            Some(entry) => (Advice::default(), entry.start.min(range.end)),
            None => (Advice::default(), range.end),
        }
    }

    /// How many addresses of `range` are to be spared by eviction.
    pub fn kept(&self, range: Range<usize>) -> usize {
        let first = self.first_after(range.start);
        let within = self.used().get(first..).unwrap_or(&[]).iter();
        within
            .take_while(|entry| entry.start < range.end)
            .filter(|entry| entry.advice.keep)
            .map(|entry| entry.end.min(range.end) - entry.start.max(range.start))
            .sum()
    }

    /// Changes the advice about every address of `range`.
    ///
    /// # Errors
    ///
    /// [`NoRoom`]; nothing changes.
    pub fn update(
        &mut self,
        range: Range<usize>,
        mut change: impl FnMut(&mut Advice),
    ) -> Result<(), NoRoom> {
        if range.is_empty() {
            return Ok(());
        }
        if self.room_for(&range) > self.room() {
            return Err(NoRoom);
        }
        self.split_at(range.start);
        self.split_at(range.end);
        let mut at = range.start;
        let mut index = self.first_after(at);
        while at < range.end {
            match self.used().get(index) {
                Some(entry) if entry.start == at => at = entry.end,
                other => {
                    let end = other.map_or(range.end, |entry| entry.start.min(range.end));
                    self.insert(
                        index,
                        AdviceEntry {
                            start: at,
                            end,
                            advice: Advice::default(),
                        },
                    );
                    at = end;
                }
            }
            if let Some(entry) = self.entries.as_mut().get_mut(index) {
                change(&mut entry.advice);
            }
            index += 1;
        }
        self.tidy();
        Ok(())
    }

    /// Forgets all advice about `range`. Where there is no room to split a range in two, its
    /// smaller part is forgotten as well.
    pub fn clear(&mut self, range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        let mut index = self.first_after(range.start);
        while let Some(&entry) = self.used().get(index) {
            if entry.start >= range.end {
                break;
            }
            let before = AdviceEntry {
                end: entry.end.min(range.start),
                ..entry
            };
            let after = AdviceEntry {
                start: entry.start.max(range.end),
                ..entry
            };
            match (before.start < before.end, after.start < after.end) {
                (false, false) => {
                    self.remove(index);
                    continue;
                }
                (true, false) => self.put(index, before),
                (false, true) => self.put(index, after),
                (true, true) if self.len < self.entries.as_ref().len() => {
                    self.put(index, before);
                    self.insert(index + 1, after);
                }
                (true, true) => {
                    let before_is_larger = before.end - before.start >= after.end - after.start;
                    self.put(index, if before_is_larger { before } else { after });
                }
            }
            index += 1;
        }
    }

    fn used(&self) -> &[AdviceEntry] {
        self.entries.as_ref().get(..self.len).unwrap_or(&[])
    }

    /// The index of the first entry that ends after `address`.
    fn first_after(&self, address: usize) -> usize {
        self.used().partition_point(|entry| entry.end <= address)
    }

    /// Makes two entries of one that has `address` inside. There must be room.
    fn split_at(&mut self, address: usize) {
        let index = self.first_after(address);
        if let Some(&entry) = self.used().get(index) {
            if entry.start < address {
                self.put(
                    index,
                    AdviceEntry {
                        end: address,
                        ..entry
                    },
                );
                self.insert(
                    index + 1,
                    AdviceEntry {
                        start: address,
                        ..entry
                    },
                );
            }
        }
    }

    fn put(&mut self, index: usize, entry: AdviceEntry) {
        if let Some(place) = self.entries.as_mut().get_mut(index) {
            *place = entry;
        }
    }

    fn insert(&mut self, index: usize, entry: AdviceEntry) {
        let len = self.len;
        if let Some(tail) = self.entries.as_mut().get_mut(index..len + 1) {
            tail.rotate_right(1);
            if let Some(place) = tail.first_mut() {
                *place = entry;
            }
            self.len += 1;
        }
    }

    fn remove(&mut self, index: usize) {
        let len = self.len;
        if let Some(tail) = self.entries.as_mut().get_mut(index..len) {
            tail.rotate_left(1);
            self.len -= 1;
        }
    }

    /// Drops entries with the default advice, and joins those that touch and agree.
    fn tidy(&mut self) {
        let mut kept = 0usize;
        for index in 0..self.len {
            let Some(&entry) = self.used().get(index) else {
                return;
            };
            if entry.advice == Advice::default() {
                continue;
            }
            let last = kept.checked_sub(1);
            let last = last.and_then(|last| self.entries.as_mut().get_mut(last));
            match last {
                Some(last) if last.end == entry.start && last.advice == entry.advice => {
                    last.end = entry.end;
                }
                _ => {
                    self.put(kept, entry);
                    kept += 1;
                }
            }
        }
        self.len = kept;
    }
}
