// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The device by the book: one pass over an available ring, on plain arrays, one byte and one rule at a time.

mod execute;

use hmm_protocol::{Limits, NO_ERROR_INDEX, Status};

use execute::header;

/// Memory, ring and session as the device sees them.
pub(crate) struct Model<'a> {
    pub(crate) guest: Vec<u8>,
    /// Ranges of `guest` that are in the memory table.
    pub(crate) table: Vec<(u64, u64)>,
    pub(crate) device: &'a mut Vec<u8>,
    pub(crate) limits: Limits,
    pub(crate) generation: u64,
    pub(crate) size: u16,
    pub(crate) descriptors: u64,
    pub(crate) avail: u64,
    pub(crate) used: u64,
}

/// What a pass did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Pass {
    pub(crate) used: Vec<(u16, u32)>,
    pub(crate) broken: bool,
    /// Something of the ring itself was written as data, or a time was read as data.
    pub(crate) unpredictable: bool,
    /// Where the device has written times.
    pub(crate) times: Vec<(u64, u64)>,
}

type Segments = Vec<(u64, u64)>;

impl Model<'_> {
    fn in_table(&self, address: u64, len: u64) -> bool {
        let Some(end) = address.checked_add(len) else {
            return false;
        };
        // From byte to byte, but past those that are in the same range.
        let mut at = address;
        while at < end {
            let range = self
                .table
                .iter()
                .find(|(start, bytes)| at >= *start && at - start < *bytes);
            let Some((start, bytes)) = range else {
                return false;
            };
            at = start + bytes;
        }
        true
    }

    fn read(&self, address: u64, len: u64) -> Option<&[u8]> {
        if len == 0 {
            return Some(&[]);
        }
        self.in_table(address, len)
            .then(|| &self.guest[address as usize..(address + len) as usize])
    }

    fn u16_at(&self, address: u64) -> Option<u16> {
        Some(u16::from_le_bytes(self.read(address, 2)?.try_into().ok()?))
    }

    /// The buffers of a chain: readable, writable, and whether it is malformed.
    fn walk(&self, head: u16) -> (Segments, Segments, bool) {
        let (mut readable, mut writable, mut malformed) = (Vec::new(), Vec::new(), false);
        let (mut table, mut entries, mut next) = (self.descriptors, self.size, head);
        let (mut left, mut indirect, mut total, mut count) = (entries, false, 0u32, 0);
        while left > 0 && next < entries {
            let Some(bytes) = table
                .checked_add(16 * u64::from(next))
                .and_then(|at| self.read(at, 16))
            else {
                break;
            };
            let word = |from: usize, to: usize| {
                bytes[from..to]
                    .iter()
                    .rev()
                    .fold(0u64, |word, byte| word << 8 | u64::from(*byte))
            };
            let (address, len, flags) = (word(0, 8), word(8, 12) as u32, word(12, 14));
            if flags & 4 != 0 {
                // A table of descriptors, once, of whole descriptors, of at most 65535.
                if indirect || len % 16 != 0 || len / 16 > 65535 {
                    break;
                }
                (table, entries, next) = (address, (len / 16) as u16, 0);
                (left, indirect) = (entries, true);
                continue;
            }
            let Some(sum) = total.checked_add(len) else {
                break;
            };
            total = sum;
            if count == 64 {
                malformed = true;
                break;
            }
            count += 1;
            if len > 0 && flags & 2 != 0 {
                writable.push((address, u64::from(len)));
            } else if len > 0 {
                malformed |= !writable.is_empty();
                readable.push((address, u64::from(len)));
            }
            if flags & 1 == 0 {
                break;
            }
            next = word(14, 16) as u16;
            left -= 1;
        }
        (readable, writable, malformed)
    }

    /// Serves what is available from position `next` on.
    pub(crate) fn pass(&mut self, mut next: u16) -> Pass {
        let mut pass = Pass {
            used: Vec::new(),
            broken: false,
            unpredictable: false,
            times: Vec::new(),
        };
        loop {
            let Some(available) = self.u16_at(self.avail + 2) else {
                pass.broken = true;
                return pass;
            };
            let ahead = available.wrapping_sub(next);
            if ahead > self.size {
                pass.broken = true;
                return pass;
            }
            if ahead == 0 {
                return pass;
            }
            let slot = u64::from(next % self.size);
            let Some(head) = self.u16_at(self.avail + 4 + 2 * slot) else {
                pass.broken = true;
                return pass;
            };
            if head >= self.size {
                pass.broken = true;
                return pass;
            }
            next = next.wrapping_add(1);
            let len = self.serve(head, &mut pass);
            pass.used.push((head, len));
        }
    }

    fn serve(&mut self, head: u16, pass: &mut Pass) -> u32 {
        let (readable, writable, malformed) = self.walk(head);
        let room: u64 = writable.iter().map(|(_, len)| len).sum();
        if room < 32 {
            return 0;
        }
        let total: u64 = readable.iter().map(|(_, len)| len).sum();
        let longest = 32 + 4096 * 32;
        let mut request = Vec::new();
        let mut unreadable = false;
        for (address, len) in &readable {
            let here = (*len).min(longest - request.len() as u64);
            match self.read(*address, here) {
                Some(bytes) => request.extend_from_slice(bytes),
                None => unreadable = true,
            }
            self.reads(*address, here, pass);
        }
        if unreadable {
            request.clear();
        }
        let status_room = (room - 32) as usize;
        let (result, cookie) = if malformed || total > longest {
            let cookie = header(&request).map(|header| header.cookie.get());
            (Err(Status::BadLength), cookie)
        } else if unreadable {
            (Err(Status::BadGuestAddress), None)
        } else {
            let cookie = header(&request).map(|header| header.cookie.get());
            (self.execute(&request, status_room, pass), cookie)
        };
        let (status, ok, bytes, first, statuses) = match result {
            Err(status) => (status, 0, 0, NO_ERROR_INDEX, Vec::new()),
            Ok((wanted, statuses, bytes)) => {
                let first = statuses
                    .iter()
                    .position(|status| !matches!(status, Status::Ok | Status::NotAttempted));
                let status = first.map_or(Status::Ok, |index| statuses[index]);
                let ok = statuses
                    .iter()
                    .filter(|status| **status == Status::Ok)
                    .count();
                let mut array: Vec<u8> = statuses.iter().map(|status| status.to_wire()).collect();
                array.resize(array.len().next_multiple_of(8), 0);
                if !wanted {
                    array.clear();
                }
                (
                    status,
                    ok as u32,
                    bytes,
                    first.map_or(NO_ERROR_INDEX, |at| at as u32),
                    array,
                )
            }
        };
        let mut record = vec![status.to_wire(), 0, 0, 0];
        record.extend(ok.to_le_bytes());
        record.extend(bytes.to_le_bytes());
        record.extend(first.to_le_bytes());
        record.extend([0; 4]);
        record.extend(cookie.unwrap_or(0).to_le_bytes());
        record.extend(statuses);
        if self.write(&writable, &record, pass) {
            record.len() as u32
        } else {
            0
        }
    }

    /// Writes a record in the order of the wire format, as far as it goes. Returns whether all went.
    fn write(&mut self, segments: &Segments, record: &[u8], pass: &mut Pass) -> bool {
        for range in [32..record.len(), 1..32, 0..1] {
            let (start, whole) = (range.start, range.len());
            let mut skip = start as u64;
            let mut bytes = &record[range];
            if bytes.is_empty() {
                continue;
            }
            for (address, len) in segments {
                if skip >= *len {
                    skip -= len;
                    continue;
                }
                let here = (bytes.len() as u64).min(len - skip);
                let Some(at) = address.checked_add(skip) else {
                    return false;
                };
                if !self.in_table(at, here) {
                    return false;
                }
                self.note(at, here, pass);
                self.guest[at as usize..(at + here) as usize]
                    .copy_from_slice(&bytes[..here as usize]);
                // Bytes 20 to 23 of a record are a time.
                let offset = (start + whole - bytes.len()) as u64;
                for byte in (offset..offset + here).filter(|byte| (20..24).contains(byte)) {
                    pass.times.push((at + byte - offset, 1));
                }
                bytes = &bytes[here as usize..];
                skip = 0;
                if bytes.is_empty() {
                    break;
                }
            }
        }
        true
    }

    /// Notes a read of a time that only the device knows.
    fn reads(&self, address: u64, len: u64, pass: &mut Pass) {
        pass.unpredictable |= pass
            .times
            .iter()
            .any(|(at, _)| *at >= address && *at - address < len);
    }

    /// Notes a write that touches the ring.
    fn note(&self, address: u64, len: u64, pass: &mut Pass) {
        let ring = self.descriptors..self.used + 8 * u64::from(self.size) + 8;
        pass.unpredictable |= address < ring.end && address + len > ring.start;
    }
}
