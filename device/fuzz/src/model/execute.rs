// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One request, executed by the book.

use hmm_protocol::{
    BatchFlags, BatchHeader, BatchKind, CopyEntry, Features, Op, PAGE_ADDRESS_SKIP,
    PAGE_ADDRESS_ZERO, PageList, Status,
};
use zerocopy::FromBytes;

use super::{Model, Pass};

impl Model<'_> {
    #[allow(clippy::type_complexity, reason = "named where it is taken apart")]
    pub(super) fn execute(
        &mut self,
        request: &[u8],
        room: usize,
        pass: &mut Pass,
    ) -> Result<(bool, Vec<Status>, u64), Status> {
        let header = header(request).ok_or(Status::BadLength)?;
        let kind = header.validate(self.limits.max_urgent_entries, Features::ALL)?;
        let flags = header.flags();
        let count = header.entry_count.get() as usize;
        let wanted = flags.contains(BatchFlags::STATUS_ARRAY);
        if wanted && room < count.next_multiple_of(8) {
            return Err(Status::BadLength);
        }
        if header.generation.get() != self.generation {
            return Err(Status::StaleGeneration);
        }
        let body = &request[32..];
        let entries: Vec<Result<CopyEntry, Status>> = match kind {
            BatchKind::Entries => {
                if body.len() != 32 * count {
                    return Err(Status::BadLength);
                }
                body.chunks(32)
                    .map(|bytes| Ok(CopyEntry::read_from_bytes(bytes).expect("32 bytes")))
                    .collect()
            }
            BatchKind::PageList => {
                let (list, addresses) =
                    PageList::read_from_prefix(body).map_err(|_| Status::BadLength)?;
                if addresses.len() != 8 * count {
                    return Err(Status::BadLength);
                }
                let op = list.validate(count as u32, &self.limits, Features::ALL)?;
                addresses
                    .chunks(8)
                    .zip(0u64..)
                    .map(|(bytes, page)| {
                        let address = u64::from_le_bytes(bytes.try_into().expect("8 bytes"));
                        let device = list.device_address.get() + 4096 * page;
                        match address {
                            PAGE_ADDRESS_SKIP => Ok(CopyEntry::new(Op::Nop, 0, 0, 0)),
                            PAGE_ADDRESS_ZERO if op == Op::ToDevice => {
                                Ok(CopyEntry::new(Op::Fill, 0, device, 4096))
                            }
                            address if address % 8 != 0 => Err(Status::BadGuestAddress),
                            address => {
                                let mut entry = CopyEntry::new(op, address, device, 4096);
                                entry.flags = list.flags;
                                Ok(entry)
                            }
                        }
                    })
                    .collect()
            }
        };
        let bytes: u64 = match kind {
            BatchKind::PageList => 4096 * count as u64,
            BatchKind::Entries => entries
                .iter()
                .map(|entry| entry.as_ref().map_or(0, |entry| u64::from(entry.len.get())))
                .sum(),
        };
        if bytes > self.limits.max_batch_bytes {
            return Err(Status::BadLength);
        }
        let (mut statuses, mut done, mut stopped) = (Vec::new(), 0, false);
        for entry in entries {
            if stopped {
                statuses.push(Status::NotAttempted);
                continue;
            }
            match entry.and_then(|entry| self.entry(&entry, pass)) {
                Ok(bytes) => {
                    done += bytes;
                    statuses.push(Status::Ok);
                }
                Err(status) => {
                    stopped = flags.contains(BatchFlags::ORDERED);
                    statuses.push(status);
                }
            }
        }
        Ok((wanted, statuses, done))
    }

    fn entry(&mut self, entry: &CopyEntry, pass: &mut Pass) -> Result<u64, Status> {
        let op = entry.validate(&self.limits, Features::ALL)?;
        let (address, len) = (entry.address.get(), u64::from(entry.len.get()));
        if matches!(op, Op::ToDevice | Op::ToSystem) && !self.in_table(address, len) {
            return Err(Status::BadGuestAddress);
        }
        let device =
            entry.device_address.get() as usize..(entry.device_address.get() + len) as usize;
        let guest = address as usize..(address as usize).saturating_add(len as usize);
        match op {
            Op::ToDevice => {
                self.reads(address, len, pass);
                // The used ring is the device's own, and the model does not keep it.
                self.note(address, len, pass);
                self.device[device].copy_from_slice(&self.guest[guest]);
            }
            Op::ToSystem => {
                self.note(address, len, pass);
                self.guest[guest].copy_from_slice(&self.device[device.clone()]);
                if entry.flags & 2 != 0 {
                    self.device[device].fill(0);
                }
            }
            Op::Copy => self.device.copy_within(guest, device.start),
            Op::Fill => self.device[device]
                .chunks_mut(8)
                .for_each(|word| word.copy_from_slice(&address.to_le_bytes())),
            Op::Nop => {}
        }
        Ok(len)
    }
}

pub(super) fn header(request: &[u8]) -> Option<BatchHeader> {
    BatchHeader::read_from_prefix(request)
        .ok()
        .map(|(header, _)| header)
}
