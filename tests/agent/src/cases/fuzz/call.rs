// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One call with chosen values, and the check of what came of it.

use super::reply;
use super::values::Values;
use crate::cases::support::ioctl::RawNode;
use crate::cases::support::memory::{Memory, PAGE};
use anyhow::{Context, Result, bail, ensure};
use hmm_uapi::{
    ADVISE_NR, Advise, EVICT_NR, Evict, INFO_NR, IOCTL_TYPE, Info, JOB_NR, JOB_WAIT_NR, Job,
    JobKind, JobWait, LIMIT_NR, Limit, MIGRATE_NR, Migrate, PREFETCH_NR, Prefetch, RESIDENCY_NR,
    Residency, STATS_NR, Stats, WAIT_NR, Wait,
};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// What one thread knows of its open node.
pub(super) struct Caller {
    node: RawNode,
    /// Where RESIDENCY may write its map.
    map: Memory,
    /// Begun and not yet reported: the range's pages, or nothing if pages without advice do not count.
    prefetches: BTreeMap<u64, Option<u64>>,
    /// What jobs may write.
    scratch: Memory,
    /// RV64 code that returns at once.
    code: Memory,
    /// Begun and not yet reported.
    jobs: BTreeSet<u64>,
    last_stats: Stats,
}

impl Caller {
    pub(super) fn new(node: RawNode) -> Result<Self> {
        let mut code = Memory::single(1)?;
        for word in code.bytes_mut().chunks_exact_mut(4) {
            word.copy_from_slice(&0x8067_u32.to_le_bytes());
        }
        Ok(Self {
            node,
            map: Memory::single(64)?,
            prefetches: BTreeMap::new(),
            scratch: Memory::single(64)?,
            code,
            jobs: BTreeSet::new(),
            last_stats: Stats::default(),
        })
    }

    /// Makes one call. Returns its number, and whether it succeeded.
    pub(super) fn call(&mut self, values: &mut Values) -> Result<(u8, bool)> {
        let number = match values.rarely(40) {
            true => (values.random.next() & 0xff) as u8,
            false => values.random.below(usize::from(JOB_WAIT_NR) + 1) as u8,
        };
        let done = match number {
            INFO_NR => self.info(values),
            MIGRATE_NR => self.migrate(values),
            RESIDENCY_NR => self.residency(values),
            STATS_NR => self.stats(values),
            ADVISE_NR => self.advise(values),
            PREFETCH_NR => self.prefetch(values),
            WAIT_NR => self.wait(values),
            EVICT_NR => self.evict(values),
            LIMIT_NR => self.limit(values),
            JOB_NR => self.job(values),
            JOB_WAIT_NR => self.job_wait(values),
            unknown => {
                let result = self.node.call(IOCTL_TYPE, unknown, &mut [0; 64]);
                ensure!(result == Err(Errno::NOTTY), "number {unknown}: {result:?}");
                return Ok((unknown, false));
            }
        }?;
        Ok((number, done))
    }

    /// Makes the call, now and then with another size or address. `allowed` are errors beside those of every ioctl. A
    /// structure is only changed by a call that succeeds or is interrupted on its way.
    fn submit<T>(
        &self,
        values: &mut Values,
        number: u8,
        argument: &mut T,
        allowed: &[Errno],
    ) -> Result<Result<(), Errno>>
    where
        T: IntoBytes + FromBytes + Immutable + Copy + Debug,
    {
        let before = *argument;
        let mut buffer = argument.as_bytes().to_vec();
        let full = buffer.len();
        let result = match values.random.below(32) {
            0 => {
                let address = [0, 0x10, 0xffff_8880_0000_0000, usize::MAX - 8];
                let address = address[values.random.below(address.len())];
                self.node.call_at(IOCTL_TYPE, number, full, address)
            }
            1 => {
                let size = values.random.below(full + 200);
                buffer.resize(size, 0);
                if size > full && values.rarely(2) {
                    buffer[size - 1] = 1;
                }
                self.node.call(IOCTL_TYPE, number, &mut buffer)
            }
            _ => self.node.call(IOCTL_TYPE, number, &mut buffer),
        };
        if let Some(bytes) = buffer.get(..full) {
            *argument = T::read_from_bytes(bytes)
                .ok()
                .context("a structure of another size")?;
        }
        let unchanged = before
            .as_bytes()
            .starts_with(&buffer[..buffer.len().min(full)]);
        match result {
            Ok(()) => {}
            Err(Errno::INTR) if allowed.contains(&Errno::INTR) => {}
            Err(errno) => {
                let is_listed = [Errno::INVAL, Errno::TOOBIG, Errno::FAULT].contains(&errno)
                    || allowed.contains(&errno);
                ensure!(is_listed, "{errno:?} is not in the list: {before:x?}");
                ensure!(unchanged, "{errno:?} changed {before:x?} to {argument:x?}");
            }
        }
        Ok(result)
    }

    fn info(&self, values: &mut Values) -> Result<bool> {
        let mut info = Info {
            flags: values.word(&[0]),
            ..Info::default()
        };
        let result = self.submit(values, INFO_NR, &mut info, &[])?;
        if result.is_ok() {
            ensure!(
                info.memory_bytes > 0 && info.resident_bytes <= info.memory_bytes,
                "{info:?}"
            );
        }
        Ok(result.is_ok())
    }

    fn stats(&mut self, values: &mut Values) -> Result<bool> {
        let mut stats = Stats {
            flags: values.word(&[0]),
            reserved: values.word(&[0]),
            ..Stats::default()
        };
        let result = self.submit(values, STATS_NR, &mut stats, &[])?;
        if result.is_ok() {
            reply::stats(&self.last_stats, &stats)?;
            self.last_stats = stats;
        }
        Ok(result.is_ok())
    }

    fn migrate(&self, values: &mut Values) -> Result<bool> {
        let range = values.range();
        let direction = values.word(&[1, 2]);
        let mut call = Migrate {
            flags: values.move_flags(direction, range),
            direction,
            pid: values.pid(),
            reserved: u32::from(values.rarely(50)),
            start: range.0,
            end: range.1,
            ..Migrate::default()
        };
        let allowed = [Errno::SRCH, Errno::NOMEM, Errno::INTR];
        let result = self.submit(values, MIGRATE_NR, &mut call, &allowed)?;
        match result {
            Ok(()) => reply::migrate(&call, true)?,
            // It has done nothing yet, or it tells how far it came.
            Err(Errno::INTR) if call.next != 0 => reply::migrate(&call, false)?,
            Err(_) => {}
        }
        Ok(result.is_ok())
    }

    fn residency(&self, values: &mut Values) -> Result<bool> {
        let (start, end) = values.range();
        let fits = end.saturating_sub(start) >> 12 <= self.map.length() as u64;
        let mut call = Residency {
            flags: values.word(&[0]),
            pid: values.pid(),
            start,
            end,
            map: match values.random.below(8) {
                0 => 0xffff_8880_0000_0000,
                1 => u64::MAX,
                // Nothing else of the process may be overwritten.
                2..6 if fits => self.map.address() as u64,
                _ => 0,
            },
            ..Residency::default()
        };
        let allowed = [Errno::SRCH, Errno::NOMEM, Errno::INTR];
        let result = self.submit(values, RESIDENCY_NR, &mut call, &allowed)?;
        if result.is_ok() {
            reply::residency(&call)?;
        }
        Ok(result.is_ok())
    }

    fn advise(&self, values: &mut Values) -> Result<bool> {
        let (start, end) = values.range();
        let windows = [0, 4096, 65536, 2 << 20];
        let flags = values.word(&[1, 2, 4, 3, 8, 15]);
        let of = |flag: u32, values: &mut Values, usual: &[u32]| match flags & flag {
            0 => values.word(&[0]),
            _ => values.word(usual),
        };
        let mut call = Advise {
            flags,
            pid: values.pid(),
            start,
            end,
            side: of(1, values, &[0, 1, 2]),
            keep: of(2, values, &[0, 1]),
            window_least: of(4, values, &windows),
            window_most: of(4, values, &windows),
            touches: of(8, values, &[0, 1, 2, u32::MAX]),
            reserved: u32::from(values.rarely(50)),
        };
        let allowed = [Errno::SRCH, Errno::NOMEM, Errno::NOSPC, Errno::INTR];
        Ok(self.submit(values, ADVISE_NR, &mut call, &allowed)?.is_ok())
    }

    fn prefetch(&mut self, values: &mut Values) -> Result<bool> {
        let range = values.range();
        let direction = values.word(&[0, 1, 2]);
        let mut call = Prefetch {
            flags: values.move_flags(direction, range),
            direction,
            pid: values.pid(),
            reserved: u32::from(values.rarely(50)),
            start: range.0,
            end: range.1,
            id: 0,
        };
        let allowed = [Errno::SRCH, Errno::NOMEM, Errno::AGAIN, Errno::INTR];
        let result = self.submit(values, PREFETCH_NR, &mut call, &allowed)?;
        if result.is_ok() {
            let pages = (direction != 0).then_some((range.1.wrapping_sub(range.0)) >> 12);
            let known = self.prefetches.insert(call.id, pages);
            ensure!(known.is_none(), "the id {} was given twice", call.id);
        }
        Ok(result.is_ok())
    }

    fn wait(&mut self, values: &mut Values) -> Result<bool> {
        let begun = self.prefetches.keys().next().copied();
        let id = begun.filter(|_| !values.rarely(8));
        let mut call = Wait {
            flags: values.word(&[0, 1]),
            // Nothing is waited for longer than a prefetch takes.
            timeout_ms: values.word(&[0, 1, 20, 1000]),
            id: id.unwrap_or_else(|| values.random.next()),
            ..Wait::default()
        };
        let allowed = [Errno::NOENT, Errno::INTR];
        let asked = call.id;
        let result = self.submit(values, WAIT_NR, &mut call, &allowed)?;
        if result.is_ok() {
            let Some(&pages) = self.prefetches.get(&asked) else {
                bail!("WAIT knows an id that no call gave: {call:?}");
            };
            if reply::wait(&call, pages)? {
                self.prefetches.remove(&asked);
            }
        } else if result == Err(Errno::NOENT) {
            ensure!(
                !self.prefetches.contains_key(&asked),
                "the prefetch {asked} is not known any more"
            );
        }
        Ok(result.is_ok())
    }

    fn evict(&self, values: &mut Values) -> Result<bool> {
        let (start, end, bytes) = match values.random.below(8) {
            0 => (0, 0, values.bytes()),
            1 => (0, values.bytes(), values.bytes()),
            _ => {
                let (start, end) = values.range();
                (start, end, 0)
            }
        };
        let mut call = Evict {
            flags: values.word(&[0]),
            pid: values.pid(),
            start,
            end,
            bytes,
            ..Evict::default()
        };
        let allowed = [Errno::SRCH, Errno::NOMEM, Errno::INTR];
        let result = self.submit(values, EVICT_NR, &mut call, &allowed)?;
        if result.is_ok() {
            reply::evict(&call)?;
        }
        Ok(result.is_ok())
    }

    fn limit(&self, values: &mut Values) -> Result<bool> {
        let mut call = Limit {
            flags: values.word(&[0, 0, 1]),
            pid: values.pid(),
            limit_bytes: values.bytes(),
            resident_bytes: 0,
        };
        let allowed = [
            Errno::SRCH,
            Errno::PERM,
            Errno::NOMEM,
            Errno::NOSPC,
            Errno::INTR,
        ];
        let result = self.submit(values, LIMIT_NR, &mut call, &allowed)?;
        if result.is_ok() {
            reply::limit(&call)?;
        }
        Ok(result.is_ok())
    }

    /// A job that writes does so to memory of its own, and one that runs code runs its own, so that all other memory can be
    /// checked.
    fn job(&mut self, values: &mut Values) -> Result<bool> {
        let kind = values.word(&[1, 2, 3, 4, 5, 6, 7]);
        let scratch = self.scratch.range();
        let (start, end) = values.range();
        // What is read of a vast hole would take long.
        let read = end.saturating_sub(start).min(4 << 20);
        let within = values.random.below(32 * PAGE) as u64;
        let bytes = values.random.below(32 * PAGE) as u64;
        let number = values.bytes();
        let (writes, mut arguments) = match JobKind::from_raw(kind) {
            Some(JobKind::Fill) => (true, vec![scratch.start + within, bytes, number]),
            Some(JobKind::Copy) => (true, vec![scratch.start + within, start, bytes]),
            Some(JobKind::AtomicAdd) => {
                let width = u64::from(values.word(&[4, 8]));
                let first = scratch.start + (within & !7);
                (true, vec![first, bytes / 8, number, width])
            }
            Some(JobKind::Crc32c) => (false, vec![start, read, number & 0xffff_ffff]),
            Some(JobKind::Walk) => (
                false,
                vec![start, number & 0xfff, 1 + bytes, within & 0xfff],
            ),
            Some(JobKind::Probe) => (false, vec![start, end.wrapping_sub(start), number & 31]),
            Some(JobKind::Program) => {
                let entry = self.code.range().start + (within & 0xffc);
                let harts = u64::from(values.word(&[1, 2, 4]));
                let limits = [values.random.below(10_000) as u64 + 1, 1000];
                let mut all = vec![entry, scratch.end, 4096, harts];
                all.extend(limits);
                all.extend([start, end, number, bytes, within]);
                (true, all)
            }
            None => (false, vec![start, end, number]),
        };
        if !writes && values.rarely(24) {
            // A job that takes long is cancelled by JOB_WAIT, or by the end of the file.
            let place = values.random.below(arguments.len());
            arguments[place] = values.random.next();
        }
        let mut call = Job {
            // WRITE is left out: a walk would write what others check.
            flags: values.word(&[0, 0, 1]) & !2,
            kind,
            pid: match writes {
                true => 0,
                false => values.pid(),
            },
            ..Job::default()
        };
        call.arguments[..arguments.len()].copy_from_slice(&arguments);
        let allowed = [
            Errno::SRCH,
            Errno::NOMEM,
            Errno::AGAIN,
            Errno::NOSPC,
            Errno::BADF,
            Errno::OPNOTSUPP,
            Errno::INTR,
        ];
        let result = self.submit(values, JOB_NR, &mut call, &allowed)?;
        if result.is_ok() {
            ensure!(
                self.jobs.insert(call.id),
                "the id {} was given twice",
                call.id
            );
        }
        Ok(result.is_ok())
    }

    fn job_wait(&mut self, values: &mut Values) -> Result<bool> {
        let begun = self.jobs.iter().next().copied();
        let id = begun.filter(|_| !values.rarely(8));
        let mut call = JobWait {
            flags: values.word(&[0, 1, 1]),
            timeout_ms: values.word(&[0, 1, 20, 1000]),
            id: id.unwrap_or_else(|| values.random.next()),
            reserved: u32::from(values.rarely(50)),
            ..JobWait::default()
        };
        // A job may take for ever.
        if call.flags & 1 == 0 {
            call.timeout_ms = call.timeout_ms.min(1000);
        }
        let allowed = [Errno::NOENT, Errno::INTR];
        let asked = call.id;
        let result = self.submit(values, JOB_WAIT_NR, &mut call, &allowed)?;
        if result.is_ok() {
            ensure!(
                self.jobs.contains(&asked),
                "JOB_WAIT knows an id that no call gave: {call:?}"
            );
            if reply::job_wait(&call)? {
                self.jobs.remove(&asked);
            }
        } else if result == Err(Errno::NOENT) {
            ensure!(
                !self.jobs.contains(&asked),
                "the job {asked} is not known any more"
            );
        }
        Ok(result.is_ok())
    }
}
